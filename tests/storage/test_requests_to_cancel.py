"""Requests to cancel what somebody has in hand: what any store does with them, in the words of `Storage`."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from helpers.stores import DUE, ask_to_cancel, claim, claim_waiting, enqueue, release, remove, save
from trio_multispool import NotAdopted
from trio_multispool.model.cancellation import CancelRequest
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import Recovered

if TYPE_CHECKING:
    from pathlib import Path

    from trio_multispool.storage.handles import Watch

ENOUGH = CancelRequest(0.0, "enough")

PATIENCE = 60.0
"""For how long a test waits for what must come, in seconds."""


def is_told(watch: Watch, within: float = 0.0) -> bool:
    """Tell whether there is something to drain, at last after so many seconds, and drain it."""
    readable = bool(select.select([watch], [], [], within)[0])
    if readable:
        watch.drain()
    return readable


def test_a_request_is_seen_by_everybody_and_the_first_one_stands(store, other):
    """Whoever asks for the same later changes nothing."""
    enqueue(store, "send", "a")
    claim(store, "send", "a")
    assert (other.cancellation("send", "a"), list(other.asked_to_cancel())) == (None, [])
    ask_to_cancel(other, "a")
    store.ask_to_cancel("send", "a", CancelRequest(1.0, "enough of that"))
    for each in (store, other):
        assert (each.cancellation("send", "a"), list(each.asked_to_cancel())) == (ENOUGH, ["a"])


def test_a_request_stands_until_it_is_withdrawn(store, other):
    """Its owner gives the entry back, or saves it to wait, or dies: the next one is asked too."""
    enqueue(store, "send", "a")
    held = claim(store, "send", "a")
    ask_to_cancel(other, "a")
    release(store, held)
    held = claim(store, "send", "a")
    save(store, held, "send", due_at=DUE)
    held = claim_waiting(store, "send", "a")
    held.abandon()
    assert other.recover("send") == [Recovered("a", "send")]
    held = claim(store, "send", "a")
    assert store.cancellation("send", "a") == ENOUGH
    save(store, held, "send", withdraws=True)
    assert (other.cancellation("send", "a"), list(other.asked_to_cancel())) == (None, [])
    held = claim(store, "send", "a")
    ask_to_cancel(other, "a")
    store.withdraw_cancellation("a")
    store.withdraw_cancellation("a")
    assert (other.cancellation("send", "a"), list(other.asked_to_cancel())) == (None, [])


def test_a_request_means_nothing_in_another_queue(store, other):
    """The work that it was about is over there, whether or not its owner knew of it; another request can be made."""
    enqueue(store, "send", "a")
    held = claim(store, "send", "a")
    ask_to_cancel(other, "a")
    save(store, held, "retry")
    held = claim(store, "retry", "a")
    assert store.cancellation("retry", "a") is None
    ask_to_cancel(other, "a", "retry")
    assert store.cancellation("retry", "a") == ENOUGH
    save(store, held, "send", withdraws=True)
    assert (other.cancellation("send", "a"), list(other.asked_to_cancel())) == (None, [])


@pytest.mark.parametrize("withdraws", [True, False])
def test_a_request_means_nothing_to_a_later_entry_of_its_name(store, other, withdraws):
    """Whether or not the owner of the first knew of it."""
    enqueue(store, "send", "a")
    held = claim(store, "send", "a")
    ask_to_cancel(other, "a")
    remove(store, held, withdraws=withdraws)
    assert other.cancellation("send", "a") is None
    enqueue(other, "send", "a")
    claim(other, "send", "a")
    assert store.cancellation("send", "a") is None
    ask_to_cancel(store, "a")
    assert other.cancellation("send", "a") == ENOUGH


def test_who_watches_is_told_of_requests_and_of_nothing_else(store, other):
    """Also of the first one ever, and of those that come before the watch is looked at again."""
    watch = store.watch_cancellations()
    assert watch is not None
    watch.add("")
    for name in "abc":
        enqueue(other, "send", name)
        claim(other, "send", name)
    assert not is_told(watch)
    for name in "abc":
        ask_to_cancel(other, name)
        assert is_told(watch, PATIENCE)
        watch.add("")
        assert not is_told(watch)
    watch.close()
    watch.close()


def test_owners_who_need_not_know_of_requests_are_not_asked(tmp_path: Path):
    """In a directory that is not adopted."""
    storage = DirectoryStorage.open(tmp_path / "spool", ["send"], create=True)
    os.unlink(tmp_path / "spool" / ".spool.json")
    storage.close()
    storage = DirectoryStorage.open(tmp_path / "spool", ["send"])
    enqueue(storage, "send", "a")
    claim(storage, "send", "a")
    with pytest.raises(NotAdopted):
        ask_to_cancel(storage, "a")
    assert storage.cancellation("send", "a") is None
    storage.close()
