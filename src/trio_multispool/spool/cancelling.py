"""Cancel one entry, wherever it is: remove it, or ask whoever has it to end the work on it; see `Spool.cancel`.

Theory. An entry may move between the look for it and what is done about it. One that is there to be taken is checked
out and removed under its lock, as by any owner. Of one in hand, the request is written first, and then the entry looked
for again. If it is still in hand, its owner will see the request, or has seen it. If it is back in its queue, it is
removed as above, so that no request is left beside an entry that nobody has. If it has gone on, its owner was quicker.
What a dead owner had in hand is put back on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from trio_multispool.errors import EntryBusy, EntryNotFound
from trio_multispool.model.cancellation import Cancelled, new_request
from trio_multispool.model.lifecycle import State
from trio_multispool.model.names import invalid_name
from trio_multispool.model.results import Err, Ok, handed_out
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.requests import NotDue, Removing
from trio_multispool.storage.singly import release_or_let_go, settle_one
from trio_multispool.storage.upkeep import is_adopted
from trio_multispool.threads.batches import Whole

if TYPE_CHECKING:
    from trio_multispool.model.cancellation import CancelRequest
    from trio_multispool.model.lifecycle import Place
    from trio_multispool.model.results import Result
    from trio_multispool.session.session import Session
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.threads.transaction import BeforeCommit

_TRIES: Final = 10
"""How often the entry may move, or be locked for a moment."""

_FIRST_WAIT: Final = 0.001
"""For a lock, in seconds; it doubles, up to half a second."""


async def cancel(session: Session[Any, Any, Any, Any], name: str, reason: str) -> Result[Cancelled, Any]:
    """Cancel an entry; `Spool.cancel` says what that means."""
    what, request = f"cancel entry {name}", new_request(session.now(), reason)
    fault = invalid_name(name)
    if fault is not None:
        return handed_out(Err(fault), what, session.running.what)
    for attempt in range(_TRIES):
        if attempt:
            await anyio.sleep(_FIRST_WAIT * 2**attempt)
        answer = await session.check_outs.run(what, Whole(_Cancelling(session, name, request).attempt))
        if isinstance(answer, Err):
            return answer
        if isinstance(answer.value, Cancelled):
            return Ok(answer.value)
        if isinstance(answer.value, EntryNotFound):
            return handed_out(Err(answer.value), what, session.running.what)
    return handed_out(Err(EntryBusy(name)), what, session.running.what)


class _Cancelling:
    """One attempt to cancel an entry, in a worker thread."""

    def __init__(self, session: Session[Any, Any, Any, Any], name: str, request: CancelRequest) -> None:
        self._name = name
        self._request = request
        self._session = session
        self._storage: Storage[Any, Any] = session.storage

    def attempt(self, before_commit: BeforeCommit) -> Cancelled | EntryNotFound | EntryBusy:
        """Look for the entry, and do what is to be done about it where it is. `EntryBusy`: try again."""
        name, storage = self._name, self._storage
        item = storage.find(name)
        if item is None or item.place.state is State.QUARANTINED:
            return EntryNotFound("" if item is None else item.place.queue, name)
        if item.place.state is not State.CHECKED_OUT:
            return self._remove(item.place, before_commit) or EntryBusy(name)
        recovered = storage.recover_name(name) if is_adopted(storage) else None
        if recovered is not None:  # its owner is dead
            self._session.note_recovered([recovered])
            return EntryBusy(name)
        before_commit()
        return self._ask(item.place.queue)

    def _ask(self, queue: str) -> Cancelled:
        """Ask the owner; if it has just given the entry back, remove that. Otherwise the request is for the next."""
        name, storage = self._name, self._storage
        storage.ask_to_cancel(queue, name, self._request)
        item = storage.find(name)
        if item is None or item.place.queue != queue:  # it was about to be settled
            if item is None or storage.cancellation(item.place.queue, name) is None:  # else it is somebody else's
                storage.withdraw_cancellation(name)
        elif item.place.state in (State.AVAILABLE, State.WAITING):
            return self._remove(item.place, lambda: None, asked=True) or Cancelled.ASKED
        return Cancelled.ASKED

    def _remove(self, place: Place, before_commit: BeforeCommit, *, asked: bool = False) -> Cancelled | None:
        """Remove an entry that nobody has; `None`: somebody has it. `ASKED`: it was saved as its reader says."""
        claim = self._storage.claim(place, self._name, before_commit=before_commit)
        if isinstance(claim, (Unavailable, NotDue)):
            return None
        if asked and self._storage.cancellation(place.queue, self._name) is None:
            release_or_let_go(self._storage, claim)
            return Cancelled.ASKED
        try:
            settle_one(self._storage, Removing(claim, None, lambda: None, withdraws=True))
        except BaseException:  # passed on, whatever it was
            release_or_let_go(self._storage, claim)
            raise
        self._session.tell_cancelled(place.queue, self._name, self._request.reason)
        return Cancelled.REMOVED
