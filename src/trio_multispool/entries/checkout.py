"""`Checkout`: an entry in hand, as readers, handlers and retries use it; and the check-out of one entry by its name."""

from __future__ import annotations

import functools
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, cast, final

import msgspec
from anyio.lowlevel import cancel_shielded_checkpoint

from trio_multispool.clock import this_process
from trio_multispool.entries.claimer import Claimed
from trio_multispool.entries.datafile import DataFile
from trio_multispool.entries.key_limits import UNLIMITED
from trio_multispool.errors import DurabilityUnknown, EntryBusy, EntryNotFound
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.instrumentation import How, Operation
from trio_multispool.model.attempts import (
    ATTEMPTS,
    CANCELLED,
    Mark,
    answered,
    begun,
    encode_history,
    failed,
    history_in,
)
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.results import Err, Ok, handed_out, peek
from trio_multispool.model.times import due_at, time_since
from trio_multispool.model.types import D, M, Q
from trio_multispool.model.verdicts import UNCHANGED, Remove, Save, Unavailable, Unchanged
from trio_multispool.storage.handles import Claim
from trio_multispool.storage.requests import NotDue, Releasing, Removing, Saving, Settlement
from trio_multispool.storage.singly import release_or_let_go
from trio_multispool.storage.source import Claiming
from trio_multispool.threads.batches import Whole
from trio_multispool.threads.loop import is_cancellation, take_over_notes
from trio_multispool.threads.transaction import BeforeCommit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from contextlib import AbstractContextManager
    from typing import Literal

    import anyio

    from trio_multispool.entries.key_limits import KeySlot
    from trio_multispool.errors import CheckoutError, SpoolError, TryCheckoutError
    from trio_multispool.model.attempts import Begun
    from trio_multispool.model.cancellation import CancelRequest
    from trio_multispool.model.policies import Durability
    from trio_multispool.model.results import Result
    from trio_multispool.model.times import NotBefore
    from trio_multispool.session.session import Session
    from trio_multispool.storage.requests import Notes
    from trio_multispool.threads.transaction import Answer


_LET_GO: Final = "entry %(entry)s of queue %(queue)s was let go: %(error)s"


@final
class Checkout(Generic[Q, M, D]):
    """An entry that nobody else has, until it is settled. `CheckedOutEntry`, its public face, says what that means.

    Settling takes `insist`: then it is never withdrawn, as for work that is finished. A scope's cancellation is not
    raised. A native one is raised afterwards, with a note of what came of it.
    """

    def __init__(
        self,
        session: Session[Q, M, D, Any],
        queue: Q,
        claimed: Claimed[M],
        began: float | None = None,
        *,
        on_settled: Callable[[Checkout[Q, M, D], str | None], None] | None = None,
    ) -> None:
        """Take over what was claimed. `on_settled` is told the queue that it went to, `None` if it was removed.

        `began`: when the check-out began, by the clock of the hooks, which are told of it; `None`: they are not.
        """
        claim = claimed.claim
        self.session: Session[Q, M, D, Any] = session
        self.queue: Q = queue
        self.claim: Claim = claim
        self.name: str = claim.name
        """The entry's name."""
        session.held[claim] = weakref.ref(self)
        self.cancellation: CancelRequest | None = None
        """The request to cancel the work on it."""
        self.scope: anyio.CancelScope | None = None
        """Of the work on it, for as long as a request is to cancel it."""
        self.not_stored: Err[Any] | None = None
        """Why it could not be settled when its work was cancelled."""
        loop = session.running.loop
        if (cancellations := session.cancellations).loop is not loop:
            cancellations.listen(loop)
        if claim.name in cancellations.asked:
            cancellations.look_again()
        self.mutex: threading.Lock = threading.Lock()
        """Held in a worker thread by what writes the entry, its data or its notes."""
        self.metadata: M = claimed.metadata
        self.data: DataFile[D] = DataFile(session, claim.name, claim, self.mutex)
        self.then: Callable[[], Claiming[Any] | None] | None = None
        """Returns what the store is to claim when this is settled."""
        self.notes_when_saved: Notes | None = None
        self.notes_when_returned: Notes | None = None
        self.begun: Begun | None = None
        """The attempt at it, if its reader tries again."""
        self._on_settled = on_settled
        self._failure: SpoolError | None = None
        self.let_go: bool = False
        """Whether it could not even be given back."""
        self._insisted = False  # when it was settled, which was a checkpoint
        self.attempt: tuple[How, str | None] = (How.LET_GO, None)
        """How it was tried to settle it; changed under the mutex, in a worker thread."""
        self._carried = claimed.carried
        self.slot: KeySlot = claimed.slot
        """Of the limit that it counts for. It ends when the entry is settled."""
        if claimed.begun is not None:
            self.begin_attempt(claimed.begun)
        self._slot_ended = False
        self.around: AbstractContextManager[object] | None = None
        """What the instrumentation has put around the work."""
        self.over: bool = False
        """Whether nothing is left to do, and all have been told."""
        self._since: float | None = None
        if began is not None and session.hooks.listening:
            in_queue = time_since(claim.available_since, session.now())
            self._since = session.hooks.checked_out(claim.queue, claim.name, began, in_queue)

    is_unsafe: bool = False
    """Whether somebody else has the entry: it is one of `checkouts_unsafe`."""

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled, as the spool does."""
        self.session.__reduce__()

    def __del__(self) -> None:
        """Let go of an entry that nobody has settled; at the end of the interpreter the kernel does."""
        claim = self.claim
        if self.over or sys.is_finalizing():
            return
        _ = self.session.held.pop(claim, None)
        if claim.state is not State.CHECKED_OUT or not claim.held:
            return
        told = f"entry {claim.name!r} of spool {self.session.path} was never settled"
        message = f"{told}; put `async with job:` around the work"
        warnings.warn(message, ResourceWarning, stacklevel=1, source=claim)
        claim.abandon()

    def begin_attempt(self, begun: Begun) -> None:
        """Take note of an attempt: a save ends the history, and a return strikes the attempt out."""
        self.begun = begun
        if not begun.exhausted:
            self.data.attempt = begun.number
            self.notes_when_saved = {ATTEMPTS: None}
            self.notes_when_returned = begun.notes_before

    @property
    def settled(self) -> bool:
        """Whether the entry has been saved, removed or released."""
        return self.claim.state is not State.CHECKED_OUT

    # Cancelling

    def cancel(self, request: CancelRequest) -> None:
        """Cancel the work on it, if there is any; in the event loop."""
        if self.cancellation is None and not self.over and not self.is_unsafe:
            self.cancellation = self.data.cancellation = request
            if self.scope is not None:
                self.scope.cancel()

    def work_in(self, scope: anyio.CancelScope) -> None:
        """Begin work on it, in a scope that a request is to cancel."""
        self.scope = scope
        if self.cancellation is not None and not self.over:
            scope.cancel()

    @property
    def is_to_be_cancelled(self) -> bool:
        """Whether somebody has asked for that, and nothing has settled it."""
        return self.cancellation is not None and not (self.over or self.let_go or self.session.closed)

    @property
    def cancel_reason(self) -> str:
        """Why that was asked for, as people say; may be empty."""
        return "" if self.cancellation is None else self.cancellation.reason

    async def settle_cancelled(self, verdict: Save[Q, M] | Remove) -> Answer[None]:
        """Settle it as its reader says of what is cancelled; insists."""
        if isinstance(verdict, Save):
            target = self.session.check_queue(verdict.queue)
            waits_until = due_at(verdict.not_before, self.session.now)

            def settlement(before_commit: BeforeCommit) -> Settlement[Claim]:
                metadata, raw = verdict.metadata, None  # as it was checked out, whatever the work has made of it
                if metadata is not UNCHANGED:
                    raw = self.session.encoding.encode_if_changed(metadata, self.claim)
                notes = self._notes_of_cancelled()
                return Saving(self.claim, target, raw, None, before_commit, waits_until, notes, withdraws=True)

            answer = await self._settle(Operation.SAVE, (How.SAVED, target), settlement, insist=True)
        else:
            answer = await self.remove(insist=True)
        if self.settled:
            self.session.tell_cancelled(self.claim.queue, self.name, self.cancel_reason)
        return answer

    def _notes_of_cancelled(self) -> Notes:
        """Return what keeps the reason with the entry: its last attempt ended so. In a worker thread."""
        session, now = self.session, self.session.now()
        if self.begun is None:
            host, pid = this_process()
            found = history_in(session.storage.notes(self.name))
            history = begun(found, Mark(self.claim.queue, now, host, pid))
        else:
            history = self.begun.history
        failure = answered(CANCELLED, self.cancel_reason)
        return {ATTEMPTS: encode_history(failed(history, failure, at=now, next_at=None))}

    # Settling

    async def save(
        self,
        queue: Q,
        metadata: M | Literal[Unchanged.UNCHANGED] = UNCHANGED,
        *,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
        insist: bool = False,
    ) -> Answer[None]:
        """Move the entry to a queue, with new metadata."""
        target = self.session.check_queue(queue)
        self.check()
        stored = self.metadata if metadata is UNCHANGED else metadata
        waits_until = due_at(not_before, self.session.now)

        def settlement(before_commit: BeforeCommit) -> Settlement[Claim]:
            raw = self.session.encoding.encode_if_changed(stored, self.claim)
            withdraws = self.cancellation is not None or self.name in self.session.cancellations.asked
            notes = self.notes_when_saved
            return Saving(self.claim, target, raw, durability, before_commit, waits_until, notes, withdraws=withdraws)

        answer = await self._settle(Operation.SAVE, (How.SAVED, target), settlement, insist=insist)
        if self.settled:
            self.metadata = stored
        return answer

    def save_as_it_was(self, queue: str, due_at: float | None, notes: Notes) -> Awaitable[Answer[None]]:
        """Move the entry to a queue with the metadata that it was checked out with, and with notes; insists."""
        return self._settle(
            Operation.SAVE,
            (How.SAVED, queue),
            lambda before_commit: Saving(self.claim, queue, None, None, before_commit, due_at, notes),
            insist=True,
        )

    def remove(self, *, durability: Durability | None = None, insist: bool = False) -> Awaitable[Answer[None]]:
        """Delete the entry and its data."""
        if self.over or self.let_go:
            self.check()
        withdraws = self.cancellation is not None or self.name in self.session.cancellations.asked
        settlement = functools.partial(Removing, self.claim, durability, withdraws=withdraws)
        return self._settle(Operation.REMOVE, (How.REMOVED, None), settlement, insist=insist)

    def release(self, *, insist: bool = False) -> Awaitable[Answer[None]]:
        """Put the entry back in its queue, with the metadata that it was checked out with."""
        self.check()
        return self._settle(Operation.RELEASE, (How.RELEASED, self.claim.queue), self._releasing, insist=insist)

    def _releasing(self, _before_commit: BeforeCommit) -> Settlement[Claim]:
        return Releasing(self.claim, self.notes_when_returned)

    def giving_back(self) -> _Settling:
        """Return the step of a batch that releases the entry, if nothing else has settled it meanwhile."""
        return _Settling(self, (How.RELEASED, self.claim.queue), self._releasing, unless_settled=True)

    async def _settle(
        self,
        operation: Operation,
        attempt: tuple[How, str | None],
        settlement: Callable[[BeforeCommit], Settlement[Claim]],
        *,
        insist: bool,
    ) -> Answer[None]:
        step = _Settling(self, attempt, settlement, None if self.then is None else self.then())
        session, destination = self.session, attempt[1]
        began = session.hooks.now() if session.hooks.listening else 0.0
        self._insisted = insist
        try:
            what = operation._value_  # what `value` is, after two more calls
            told = f"{what} of entry {self.name} of queue {self.claim.queue}"
            answer = await session.settlements.run(told, step, of=self.claim, insist=insist)
        except BaseException:  # passed on
            self._tell_if_settled(destination, None, began)
            raise
        self._tell_if_settled(destination, answer, began)
        self._failure = None
        if isinstance(answer, Err):
            error: SpoolError = peek(answer)
            self._failure = error
            session.hooks.failed(operation, self.claim.queue, self.name, error, began)
        return answer

    def end_slot(self) -> None:
        """Let the next entry of the same key have the slot; in the worker thread."""
        if self.slot is not UNLIMITED:
            self._slot_ended |= self.slot.end()

    def check(self) -> None:
        """Raise `RuntimeError` if it is over."""
        if self.claim.state is not State.CHECKED_OUT or self.let_go:
            how = "settled" if self.settled else "let go"
            raise RuntimeError(f"entry {self.name!r} was {how} before; a job is settled once")

    def _tell_if_settled(self, destination: str | None, answer: Answer[None] | None, began: float) -> None:
        if self.over or (self.claim.state is State.CHECKED_OUT and not self.let_go):
            return
        self.over = True
        _ = self.session.held.pop(self.claim, None)
        if self.slot is not UNLIMITED:
            self.end_slot()
        if self._slot_ended:
            self.session.changes.tell(self.claim.queue)
        if self._on_settled is not None:
            self._on_settled(self, destination)
        hooks = self.session.hooks
        if hooks.listening:
            how, destination = self.attempt
            lost = isinstance(answer, Err) and not isinstance(peek(answer), DurabilityUnknown)
            if self.let_go or lost:  # over, and yet not as it was tried: another program was quicker
                how, destination = How.LET_GO, None
            hooks.settled(self.claim.queue, self.name, how, destination, began, self._since)

    # For the instrumentation

    def begin_work(self) -> None:
        """Enter what the instrumentation puts around the work on the entry, unless that has been done."""
        if self.around is None and self.session.hooks.listening:
            self.around = self.session.hooks.begin_working(self.claim.queue, self.name, self._carried or {})

    def end_work(self, raised: BaseException | None) -> None:
        """Leave it, if it was entered."""
        around, self.around = self.around, None
        if around is not None:
            _ = around.__exit__(type(raised) if raised else None, raised, raised.__traceback__ if raised else None)

    # Giving back

    async def give_back(self) -> Answer[None]:
        """Release it if it is unsettled; see the function `give_back`."""
        failures = await give_back(self.session, [self])
        return Err(failures[0]) if failures else Ok(None)

    def begin_giving_back(self) -> bool:
        """Forget that settling failed, and tell whether there is anything to give back."""
        self._failure = None
        if self.settled or self.let_go:
            return False
        if self.session.closed:
            reason, path, queue = "the spool was closed before", self.session.path, self.claim.queue
            log(LOGGER.warning, Event.LET_GO, path, _LET_GO, queue=queue, entry=self.name, error=reason)
            self.end_giving_back(None, self.session.hooks.now())
            return False
        return True

    def end_giving_back(self, answer: Answer[None] | None, began: float) -> None:
        """Let go of what could not be released, so that recovery can do it."""
        if not self.settled:
            self.let_go = True
            self.claim.abandon()
        self._tell_if_settled(self.claim.queue, answer, began)
        if isinstance(answer, Err):
            error, path, queue = answer.error, self.session.path, self.claim.queue
            self.session.hooks.failed(Operation.RELEASE, queue, self.name, error, began)
            log(LOGGER.error, Event.LET_GO, path, _LET_GO, queue=queue, entry=self.name, error=error)

    def open_scope(self) -> anyio.CancelScope:
        """Begin a block by hand; return the scope that a request is to cancel, which is entered. `leave` ends it."""
        if self.session.hooks.listening:
            self.begin_work()
        scope = self.session.running.loop.new_scope()
        _ = scope.__enter__()
        self.work_in(scope)
        return scope

    async def leave(self, exception: BaseException | None) -> None:
        """End such a block as a block ends; or, if a request has ended it, by removing the entry.

        Then what keeps it from being removed is raised, and not only noted on a cancellation that nobody sees.
        """
        self.scope = None
        ended = is_cancellation(exception) or (exception is None and self._failure is None)
        if not (ended and self.is_to_be_cancelled):
            await self.__aexit__(None if exception is None else type(exception), exception, None)
            return
        try:
            answer = await self.settle_cancelled(Remove())
        except BaseException as late:  # a native cancellation
            await self.__aexit__(type(late), late, None)
            raise
        answer.ignore()  # it is raised: as one of giving the entry back, or else here
        self.end_work(exception)
        await self.__aexit__(None, None, None)  # if it was not settled, it goes back, and the error is raised
        answer.unwrap()

    async def __aenter__(self) -> Checkout[Q, M, D]:
        """Begin the work. No checkpoint: were it cancelled here, the block's end would never come."""
        self.begin_work()
        return self

    async def __aexit__(self, exception_type: object, exception: BaseException | None, traceback: object) -> None:
        """Return the entry to its queue if it has not been settled."""
        if self.over and self.around is None:  # settling it was a checkpoint
            return
        try:
            await self._leave(exception)
        except BaseException as raised:  # a cancellation too ends the work, and goes on
            take_over_notes(raised, exception)
            self.end_work(raised)
            raise
        self.end_work(exception)

    async def _leave(self, exception: BaseException | None) -> None:
        if self.settled or self.let_go:
            if not self._insisted:  # else this might raise a cancellation that does not tell what has happened
                await cancel_shielded_checkpoint()
            return
        failure = self._failure
        answer = await self.give_back()
        if isinstance(answer, Err):
            failure = answer.error
        if failure is not None:
            if exception is None:
                raise failure
            exception.add_note(f"entry {self.name!r}: {failure}")


class _Settling(msgspec.Struct, eq=False):
    """The step of a batch that settles one entry. Others that write it wait from `prepare` to `conclude`."""

    checkout: Checkout[Any, Any, Any]
    attempt: tuple[How, str | None]
    settlement: Callable[[BeforeCommit], Settlement[Claim]]
    then: Claiming[Any] | None = None
    unless_settled: bool = False

    def prepare(self, before_commit: BeforeCommit) -> Settlement[Claim] | None:
        checkout = self.checkout
        _ = checkout.mutex.acquire()
        try:
            if self.unless_settled and checkout.settled:
                return None
            if checkout.claim.state is not State.CHECKED_OUT or checkout.let_go:
                checkout.check()
            checkout.attempt = self.attempt
            request = self.settlement(before_commit)
            if self.then is not None:
                request.then = self.then
                if checkout.slot is not UNLIMITED:
                    request.ready = checkout.end_slot
            return request
        except BaseException:  # passed on, whatever it was
            checkout.mutex.release()
            raise

    def conclude(self, failure: BaseException | None) -> None:
        self.checkout.mutex.release()
        if failure is not None:
            raise failure
        if self.checkout.slot is not UNLIMITED:
            self.checkout.end_slot()


async def give_back(session: Session[Q, M, D, Any], checkouts: Iterable[Checkout[Q, M, D]]) -> list[SpoolError]:
    """Release what is unsettled, all together, whatever is cancelled; forget that settling it failed.

    For readers and blocks. What cannot be put back is let go, so that recovery can do it; returns why.
    """
    ours = [checkout for checkout in checkouts if checkout.begin_giving_back()]
    if not ours:
        return []
    began = session.hooks.now()
    answers: dict[int, Answer[None]] = {}
    try:
        steps = [
            (f"return of entry {one.name} of queue {one.claim.queue}", one.giving_back(), one.claim) for one in ours
        ]
        await session.settlements.finish(steps, answers)
    finally:
        for number, checkout in enumerate(ours):
            checkout.end_giving_back(answers.get(number), began)
    return [answer.error for answer in answers.values() if isinstance(answer, Err)]


async def check_out(
    session: Session[Q, M, D, Any], queue: Q, name: str, *, early: bool = False
) -> Result[Checkout[Q, M, D] | Unavailable, TryCheckoutError]:
    """Check out one entry by its name; `Entry.try_checkout` says what that means."""
    began = session.hooks.now() if session.hooks.listening else 0.0
    answer = await session.check_outs.run(
        f"check-out of entry {name} of queue {queue._value_}",
        Whole(functools.partial(_claim, session, cast("str", queue._value_), name, early=early)),
        undo=functools.partial(_release, session),
    )
    if isinstance(answer, Err):
        session.hooks.failed(Operation.CHECK_OUT, queue.value, name, peek(answer), began)
        return answer
    claimed = answer.value
    if isinstance(claimed, Unavailable):
        return Ok(claimed)
    return Ok(Checkout(session, queue, claimed, began))


async def check_out_or_tell_why(
    session: Session[Q, M, D, Any], queue: Q, name: str, *, early: bool = False
) -> Result[Checkout[Q, M, D], CheckoutError]:
    """Check out one entry by its name; `Entry.checkout` says what that means."""
    began = session.hooks.now() if session.hooks.listening else 0.0
    answer = await check_out(session, queue, name, early=early)
    if isinstance(answer, Err):
        return answer
    if not isinstance(answer.value, Unavailable):
        return Ok(answer.value)
    gone = answer.value is Unavailable.GONE
    error = EntryNotFound(queue.value, name) if gone else EntryBusy(name)
    session.hooks.failed(Operation.CHECK_OUT, queue.value, name, error, began)
    return handed_out(Err(error), f"check-out of entry {name} of queue {queue.value}", session.running.what)


def _claim(
    session: Session[Any, M, Any, Any], queue: str, name: str, before_commit: BeforeCommit, *, early: bool
) -> Claimed[M] | Unavailable:
    if not session.cancellations.begun:
        session.cancellations.begin()
    claim = session.storage.claim(Place(queue, State.AVAILABLE), name, before_commit=before_commit)
    if early and claim is Unavailable.GONE:
        claim = session.storage.claim(Place(queue, State.WAITING), name, before_commit=before_commit)
    if isinstance(claim, (Unavailable, NotDue)):  # never not due: it was asked for at any time
        return Unavailable.GONE if isinstance(claim, NotDue) else claim
    return Claimed(claim, session.decode_or_set_aside(claim), session.carried(claim))


def _release(session: Session[Any, M, Any, Any], checked_out: Claimed[M] | Unavailable) -> None:
    if isinstance(checked_out, Claimed):
        release_or_let_go(session.storage, checked_out.claim)
