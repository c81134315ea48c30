"""The claims and reservations that the directory store hands out: a lock, and what it is for.

If one is lost on the way to its owner (by an interrupt between two lines), it releases its lock when Python collects
it. Otherwise the entry would be busy for as long as the process lives.
"""

from __future__ import annotations

import sys

import msgspec

from trio_multispool.errors import OwnershipLost
from trio_multispool.model.lifecycle import State, Step, next_state
from trio_multispool.storage.directory.disk.locks import Lock


class DirectoryReservation(msgspec.Struct, eq=False, weakref=True):
    """A reserved name: its registry lock, until it is used or given up."""

    name: str
    lock: Lock
    state: State = State.NOTHING
    looked_up: bool = False
    """Whether every place was searched for the name, under the lock."""

    def abandon(self) -> None:
        """Close the lock and leave the rest to recovery."""
        self.lock.release()

    def __del__(self) -> None:
        """Let go; at the end of the interpreter the kernel does."""
        if self.lock.fd >= 0 and not sys.is_finalizing():
            self.abandon()


class DirectoryClaim(msgspec.Struct, eq=False, weakref=True):
    """An entry that is checked out, with its lock. Without a lock, another owner may have checked it out."""

    queue: str
    name: str
    metadata: bytes
    lock: Lock | None
    home: str
    """The `.checkout` that it lies in, pinned."""
    sources: tuple[str, ...]
    """The directory from which it was checked out, pinned: the queue's, or its `.waiting`; both, if this is not known.
    """
    due_at: float | None = None
    """When it was due, in seconds since 1970, if it waited."""
    written_at: float = 0.0
    """When the metadata was written, in seconds since 1970, as it was seen before the check-out."""
    available_since: float | None = None
    """Since when it was to be had, in seconds since 1970, likewise."""
    state: State = State.CHECKED_OUT
    told: bool = False
    """Whether the owner has reported progress."""
    noted: None = None
    """Nothing: notes are files of their own."""

    @property
    def held(self) -> bool:
        """Whether the lock keeps other owners away."""
        return self.lock is not None and self.lock.held

    def abandon(self) -> None:
        """Close the lock and leave the entry to recovery."""
        if self.lock is not None:
            self.lock.release()

    def __del__(self) -> None:
        """Let go; at the end of the interpreter the kernel does."""
        if self.lock is not None and self.lock.fd >= 0 and not sys.is_finalizing():
            self.abandon()

    def check(self, operation: Step) -> State:
        """Return the state after `operation`.

        Raises `IllegalStepError` if the claim was settled before, and `OwnershipLost` if its lock has gone: in a forked
        child the entry is still its parent's.
        """
        target = next_state(operation, self.state)
        if self.lock is not None and self.lock.fd < 0:
            raise OwnershipLost(self.queue, self.name)
        return target

    def check_owned(self) -> None:
        """Raise `OwnershipLost` unless the entry is checked out, and the lock held."""
        if self.state is not State.CHECKED_OUT or not self.held:
            raise OwnershipLost(self.queue, self.name)

    def settle(self, state: State) -> None:
        """Note the commit, before anything that can fail or be interrupted: a settled entry is never released."""
        self.state = state
        self.abandon()
