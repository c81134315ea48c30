"""Check-outs by readers: what counts as an attempt, and urgent entries that keep coming."""

from __future__ import annotations

import contextvars
import os
from typing import TYPE_CHECKING, Any

import pytest

from helpers import postgresql
from helpers.finding import Reader
from helpers.losing import Open
from helpers.schemas import tables_in, until
from helpers.stores import QUEUES, claim, enqueue, fill, nothing, release
from trio_multispool.model.attempts import Mark, history_in
from trio_multispool.storage.postgres.store import PostgresStorage
from trio_multispool.storage.requests import Removing
from trio_multispool.storage.source import Claiming

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgresql


@pytest.fixture
def store() -> Iterator[PostgresStorage]:
    """Open a spool."""
    with tables_in(postgresql.server(), "checking_out") as tables:
        store = PostgresStorage.open(postgresql.server().url(tables.schema), QUEUES, create=True)
        yield store
        store.close()


def begin() -> Mark:
    """Note that an attempt begins, as a reader that tries again does with each check-out."""
    return Mark("send", 0.0, "here", os.getpid())


def attempts_at(store: PostgresStorage, name: str) -> int:
    """Return how many attempts at an entry are known to who checks it out."""
    claimed = claim(store, "send", name)
    history = history_in(claimed.noted.found)
    release(store, claimed)
    return 0 if history is None else len(history.attempts)


def reader_of(store: Any) -> Reader:
    """Return a reader that takes everything, and whose queue may get more urgent entries."""
    return Reader(store, door=Open(), sorts_last=False)  # type: ignore[arg-type]


def test_what_is_set_aside_unread_was_not_attempted(store):
    """It could not be decoded, so that no handler was called. An attempt before, whose worker has died, counts."""
    enqueue(store, "send", "a")
    [(died, _)] = reader_of(store).ask(attempt=begin).claims
    died.abandon()
    until(store.recover, "it is back")
    [(claimed, _)] = reader_of(store).ask(attempt=begin).claims
    store.quarantine(claimed, "it cannot be read")
    store.restore("send", "a", durability=None, before_commit=nothing)
    assert attempts_at(store, "a") == 1


def test_what_was_checked_out_with_a_settlement_and_is_not_begun_was_not_attempted(store):
    """Its reader was stopped in that moment."""
    for name in ("a", "b", "c"):
        enqueue(store, "send", name)
    reader = reader_of(store)
    [(claimed, _)] = reader.ask(attempt=begin).claims
    context = contextvars.copy_context()
    how = (reader.source, None, Open(), lambda: False, lambda _look, _claim: None, context, begin)
    assert store.settle([Removing(claimed, None, nothing, then=Claiming(*how))]) == [None]  # type: ignore[arg-type]
    assert store.names("send") == ["b", "c"]
    assert attempts_at(store, "b") == 0


def test_urgent_entries_that_keep_coming_are_next_and_not_remembered_for_ever(store):
    """Each question says which of them came already. What is less urgent is there until its turn comes."""
    patient = [f"m{number}" for number in range(5)]
    fill(store, "send", patient)
    reader = reader_of(store)
    assert reader.take() == patient[:1]
    for round_ in range(8):
        urgent = [f"a{round_}{number:02}" for number in range(40)]
        fill(store, "send", urgent)
        assert reader.take(40) == urgent
        reader.remove()
        assert len(reader.source.first(1, reader.door, None, None, lists=True).early) <= 200
    assert reader.take(10) == patient[1:]
