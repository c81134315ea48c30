"""Spools whose entries have no data: what is left out, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.spools import ANNE, BERT, Envelope, Mail, load_spool, quick_spool
from trio_multispool import CorruptData, DataFile, EncodingFailed, Err, Ok, Remove, Spoolable, Use
from trio_multispool.testing import memory_spool

BARE = Spoolable(queues=Mail, metadata=Envelope)
PAIRS = Spoolable(queues=Mail, metadata=tuple[str, int | None])


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["directory", "memory"])
async def test_data_are_left_out_everywhere(kind, tmp_path):
    """In each way to enqueue; a worker loads `None`."""
    opened = await quick_spool(tmp_path / "spool", BARE) if kind == "directory" else memory_spool(BARE)
    done: list[tuple[Envelope, None]] = []

    async def handler(metadata: Envelope, data: DataFile[None]) -> Remove:
        done.append((metadata, (await data.load()).unwrap()))
        return Remove()

    async with opened as spool:
        (await spool.enqueue(Mail.SEND, ANNE)).unwrap()
        (await spool.enqueue(Mail.SEND, ANNE, None)).unwrap()
        assert (await spool.enqueue_if_absent(Mail.SEND, ANNE, name=Use("x"))).unwrap() is not None
        assert (await spool.enqueue_if_absent(Mail.SEND, ANNE, name=Use("x"))).unwrap() is None
        for answer in await spool.enqueue_many(Mail.SEND, [BERT, (ANNE, None), BERT]):
            answer.unwrap()
        async with spool.channel(Mail.SEND) as (sender, _):
            await sender.send((ANNE, None))
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(handler)).unwrap()
    assert sorted(done, key=lambda each: each[0].recipient) == [(ANNE, None)] * 5 + [(BERT, None)] * 2


@pytest.mark.sample
@pytest.mark.anyio
async def test_metadata_that_are_tuples_are_taken_as_they_are(place):
    """Only a pair that ends in `None` is taken apart, so such metadata are given in a pair."""
    async with await quick_spool(place, PAIRS) as spool:
        items: list[Any] = [("a", 1), (("b", None), None), (("c", 2), None)]
        for answer in await spool.enqueue_many(Mail.SEND, items):
            answer.unwrap()
        entries = (await spool.entries(Mail.SEND)).unwrap()
        assert [(await entry.direct.contents()).unwrap() for entry in entries] == [("a", 1), ("b", None), ("c", 2)]


@pytest.mark.anyio
async def test_data_where_there_are_none_are_refused(place):
    """Nothing is enqueued, and the message says why."""
    async with await quick_spool(place, BARE) as spool:
        match await spool.enqueue(Mail.SEND, ANNE, b"Hello"):
            case Err(EncodingFailed("data", reason)):
                assert "the entries have no data, by their Spoolable, and bytes is given" in reason
            case answer:
                pytest.fail(f"{answer}")
        assert (await spool.entries(Mail.SEND)).unwrap() == []


@pytest.mark.anyio
async def test_data_that_are_missing_are_refused(place):
    """A spool with data does not take an entry without."""
    async with await quick_spool(place) as spool:
        match await spool.enqueue(Mail.SEND, ANNE):
            case Err(EncodingFailed("data", reason)):
                assert "bytes are wanted, not NoneType" in reason
            case answer:
                pytest.fail(f"{answer}")
        assert (await spool.entries(Mail.SEND)).unwrap() == []


@pytest.mark.anyio
async def test_data_of_another_program_are_not_taken_for_none(place):
    """They are there, and whoever asks is told so; who does not ask can save and remove the entry."""
    async with await quick_spool(place) as spool:
        (await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("x"))).unwrap()
    async with await load_spool(place, BARE) as spool, spool.reader(Mail.SEND) as reader:
        async for job in reader.available():
            match await job.data.load():
                case Err(CorruptData("x", reason)):
                    assert "by its Spoolable an entry has none" in reason
                case answer:
                    pytest.fail(f"{answer}")
            assert await job.save(Mail.FAILED) == Ok(None)
    async with await load_spool(place) as spool:
        [entry] = (await spool.entries(Mail.FAILED)).unwrap()
        assert (await entry.direct.data_file.load()).unwrap() == b"Hello"
