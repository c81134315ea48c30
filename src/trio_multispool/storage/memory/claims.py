"""The claims and reservations that the store in memory hands out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, final

from trio_multispool.errors import OwnershipLost
from trio_multispool.model.lifecycle import State, next_state

if TYPE_CHECKING:
    from trio_multispool.model.lifecycle import Step
    from trio_multispool.storage.handles import Slot
    from trio_multispool.storage.memory.contents import Kept


@final
@dataclasses.dataclass(eq=False, repr=False)
class MemoryReservation:
    """A reserved name: its lock, until it is used or given up."""

    name: str
    lock: Slot
    state: State = State.NOTHING

    def abandon(self) -> None:
        """Let go of the name."""
        self.lock.release()


@final
class MemoryClaim:
    """An entry that is checked out, with its lock. Without a lock, it takes the entry from its owner."""

    def __init__(self, kept: Kept, lock: Slot | None) -> None:
        self.kept: Kept = kept
        self.queue: str = kept.place.queue
        self.name: str = kept.name
        self.metadata: bytes = kept.metadata
        self.due_at: float | None = kept.due_at
        self.written_at: float = kept.written_at
        self.available_since: float | None = max(kept.arrived_at, kept.due_at or 0.0)
        self.lock: Slot | None = lock
        self.state: State = State.CHECKED_OUT
        self.noted: None = None
        self._checkout = kept.checkouts

    @property
    def held(self) -> bool:
        """Whether the lock keeps other owners away."""
        return self.lock is not None and self.lock.held

    def abandon(self) -> None:
        """Let go of the lock."""
        if self.lock is not None:
            self.lock.release()

    def check(self, step: Step) -> State:
        """Return the state after a step. Raises `IllegalStepError` if the claim was settled, and `OwnershipLost`."""
        target = next_state(step, self.state)
        self.check_owned()
        return target

    def check_owned(self) -> None:
        """Raise `OwnershipLost` unless the entry is still this claim's; under the mutex, or to fail early."""
        is_ours = self.kept.place.state is State.CHECKED_OUT and self.kept.checkouts == self._checkout
        let_go = self.lock is not None and not self.lock.held
        if self.state is not State.CHECKED_OUT or let_go or not is_ours:
            raise OwnershipLost(self.queue, self.name)

    def settle(self, state: State) -> None:
        """Note the commit."""
        self.state = state
        self.abandon()
