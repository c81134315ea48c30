"""Cancel one entry, wherever it is: remove it, or ask whoever has it to end the work on it; see `Spool.cancel`.

Theory. An entry may move between the look for it and what is done about it. One that is there to be taken is checked
out and removed under its lock, as by any owner. Of one in hand, the request is written first, and then the entry looked
for again. If it is still in hand, its owner will see the request, or has seen it; otherwise all begins anew, so that no
request is left beside an entry that nobody has. What a dead owner had in hand is put back on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from trio_multispool.errors import EntryBusy, EntryNotFound
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.model.cancellation import NO_REASON, Cancelled, new_request
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
    from trio_multispool.model.results import Result
    from trio_multispool.session.session import Session
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.requests import Item
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
    cancelling = _Cancelling(session, name, request)
    for attempt in range(_TRIES):
        answer = await session.check_outs.run(what, Whole(cancelling.attempt))
        if isinstance(answer, Err):
            return answer
        if isinstance(answer.value, Cancelled):
            _tell(session, cancelling, answer.value)
            return Ok(answer.value)
        if isinstance(answer.value, EntryNotFound):
            return handed_out(Err(answer.value), what, session.running.what)
        await anyio.sleep(_FIRST_WAIT * 2**attempt)
    return handed_out(Err(EntryBusy(name)), what, session.running.what)


def _tell(session: Session[Any, Any, Any, Any], cancelling: _Cancelling, done: Cancelled) -> None:
    if done is Cancelled.REMOVED:
        message = "entry %(entry)s of queue %(queue)s was cancelled: %(reason)s"
        queue, name, reason = cancelling.queue, cancelling.name, cancelling.request.reason or NO_REASON
        log(LOGGER.info, Event.CANCELLED, session.path, message, queue=queue, entry=name, reason=reason)


class _Cancelling:
    """The attempts to cancel one entry, in worker threads."""

    def __init__(self, session: Session[Any, Any, Any, Any], name: str, request: CancelRequest) -> None:
        self.name = name
        self.request = request
        self.queue = ""
        self._session = session
        self._storage: Storage[Any, Any] = session.storage
        self._asked = False

    def attempt(self, before_commit: BeforeCommit) -> Cancelled | EntryNotFound | EntryBusy:
        """Look for the entry, and do what is to be done about it where it is. `EntryBusy`: try again."""
        item = self._storage.find(self.name)
        if self._is_over():
            return Cancelled.ASKED
        if item is not None and item.place.state is State.CHECKED_OUT:
            recovered = self._storage.recover_name(self.name) if is_adopted(self._storage) else None
            if recovered is not None:  # its owner is dead
                self._session.note_recovered([recovered])
                return EntryBusy(self.name)
            return self._ask(before_commit)
        if item is None or item.place.state is State.QUARANTINED:
            if not self._asked:
                return EntryNotFound("" if item is None else item.place.queue, self.name)
            self._storage.withdraw_cancellation(self.name)  # its owner was about to settle it
            return Cancelled.ASKED
        return self._remove(item, before_commit)

    def _is_over(self) -> bool:
        """Tell whether an owner was asked, and has settled the entry since, as its reader says of what is cancelled."""
        return self._asked and self._storage.cancellation(self.name) is None

    def _ask(self, before_commit: BeforeCommit) -> Cancelled | EntryBusy:
        if not self._asked:
            before_commit()
            self._storage.ask_to_cancel(self.name, self.request)
            self._asked = True
        item = self._storage.find(self.name)
        in_hand = item is not None and item.place.state is State.CHECKED_OUT
        return Cancelled.ASKED if in_hand else EntryBusy(self.name)

    def _remove(self, item: Item, before_commit: BeforeCommit) -> Cancelled | EntryBusy:
        claim = self._storage.claim(item.place, self.name, before_commit=before_commit)
        if isinstance(claim, (Unavailable, NotDue)):
            return EntryBusy(self.name)
        if self._is_over():  # under the lock nobody is on the way to that
            release_or_let_go(self._storage, claim)
            return Cancelled.ASKED
        try:
            settle_one(self._storage, Removing(claim, None, lambda: None, withdraws=True))
        except BaseException:  # passed on, whatever it was
            release_or_let_go(self._storage, claim)
            raise
        self.queue = item.place.queue
        return Cancelled.REMOVED
