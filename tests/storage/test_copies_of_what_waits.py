"""What waits is a later state than what is checked out or was being restored: of two copies, it is the one to stay."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from helpers.calls import FailingCalls
from helpers.children import quick_directory
from helpers.spools import state_of
from helpers.stores import DUE, NEW, OLD, claim_waiting, enqueue, make_store, remove

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


@pytest.mark.parametrize("queue", ["send", "retry"])
def test_recovery_drops_what_is_checked_out_beside_what_waits(path, queue):
    """In whichever queue's `.checkout` the copy is, it does not become available; the entry goes on waiting."""
    storage = make_store(path)
    enqueue(storage, "send", "a", due_at=DUE)
    (path / queue / ".checkout" / "a").write_bytes(NEW)
    assert storage.recover() == []
    state = state_of(path)
    assert state.places("a") == ["send/.waiting"]
    assert state.waiting["send"] == {"a": OLD}
    assert state.faults() == []
    storage.close()


def test_recovery_drops_what_is_in_quarantine_beside_the_same_file_that_waits(path):
    """One file under two names was on its way from one place to the other: where it waits is the later state."""
    storage = make_store(path)
    enqueue(storage, "send", "a", due_at=DUE)
    (path / ".quarantine/send").mkdir(parents=True)
    os.link(path / "send/.waiting/a", path / ".quarantine/send/a")
    storage.recover_name("a")
    assert state_of(path).places("a") == ["send/.waiting"]
    assert state_of(path).faults() == []
    storage.close()


def test_whoever_takes_what_waits_before_a_recovery_drops_its_stale_copy(path):
    """A copy in another queue's `.checkout` that outlived the entry would be put back as one without data."""
    store = make_store(path)
    enqueue(store, "send", "a", due_at=DUE)
    (path / "retry" / ".checkout" / "a").write_bytes(NEW)
    calls = FailingCalls()
    with calls.failing("unlink", errno.EROFS, "/retry/.checkout/a"):
        storage = make_store(path, calls=calls)  # its recovery cannot
    assert set(state_of(path).places("a")) == {"send/.waiting", "retry/.checkout"}
    claimed = claim_waiting(storage, "send", "a")
    assert state_of(path).places("a") == ["send/.checkout"]
    remove(storage, claimed)
    assert storage.recover() == []
    assert state_of(path).entries() == set()
    assert state_of(path).faults() == []
    for each in (store, storage):
        each.close()
