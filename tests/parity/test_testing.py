"""The rows of the original's `For_testing`."""

from __future__ import annotations

import pytest

from helpers.spools import ANNE, MAIL, Envelope, Mail, names_in, quick_spool
from trio_multispool import Spoolable
from trio_multispool.model.names import invalid_name
from trio_multispool.testing import LexicographicTimeOrder, strict_order

pytestmark = pytest.mark.anyio


def test_the_lexicographic_generators_names_sort_in_the_order_of_their_making_and_repeat():
    """The names are valid, sort as they were made, and are the same in every run."""
    first, second = LexicographicTimeOrder(), LexicographicTimeOrder()
    made = [first.next(None, 0) for _ in range(100)]
    assert made == sorted(made)
    assert len(set(made)) == 100
    assert made == [second.next("ignored", 5) for _ in range(100)]
    assert all(invalid_name(name) is None for name in made)


async def test_readers_see_entries_in_strict_enqueue_order(tmp_path):
    """With `strict_order`, whichever task enqueued, a reader hands out the entries in the order of their enqueueing."""
    spool = await quick_spool(tmp_path / "spool", strict_order(MAIL))
    for number in range(20):
        (await spool.enqueue(Mail.SEND, Envelope(str(number)), b"")).unwrap()
    async with spool.reader(Mail.SEND) as reader:
        seen = [job.metadata.recipient async for job in reader.available()]
    assert seen == [str(number) for number in range(20)]


async def test_strict_order_leaves_the_original_spoolable_alone(tmp_path):
    """The same queues and codecs, with other names; spools that share one share the order."""
    mine = strict_order(MAIL)
    assert (mine.queues, mine.metadata, mine.data) == (MAIL.queues, MAIL.metadata, MAIL.data)
    assert MAIL.names is None
    one = await quick_spool(tmp_path / "spool", mine)
    two = await quick_spool(tmp_path / "spool", mine)
    made = [(await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap().name for spool in (one, two, one)]
    assert await names_in(one, Mail.SEND) == made
    names = LexicographicTimeOrder()
    assert Spoolable(Mail, Envelope, bytes, names).names is names
