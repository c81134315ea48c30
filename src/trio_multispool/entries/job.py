"""`CheckedOutEntry`, a job: an entry that is checked out and must be settled or returned."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final, Generic, final

from anyio.lowlevel import cancel_shielded_checkpoint

from trio_multispool.entries.datafile import DataFile
from trio_multispool.entries.key_limits import UNLIMITED
from trio_multispool.errors import DurabilityUnknown
from trio_multispool.events import Event, log
from trio_multispool.instrumentation import How, Operation
from trio_multispool.model.attempts import ATTEMPTS
from trio_multispool.model.lifecycle import State
from trio_multispool.model.results import Err, Ok
from trio_multispool.model.times import due_at
from trio_multispool.model.types import D, M, Q
from trio_multispool.model.verdicts import UNCHANGED, Unchanged
from trio_multispool.session.waiting import Due
from trio_multispool.storage.requests import Releasing, Removing, Saving
from trio_multispool.threads.loop import take_over_notes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Literal

    from trio_multispool.entries.key_limits import KeySlot
    from trio_multispool.errors import OwnershipLost, ReleaseError, RemoveError, SaveError, SpoolError, Trouble
    from trio_multispool.model.policies import Durability
    from trio_multispool.model.results import Result
    from trio_multispool.model.times import NotBefore
    from trio_multispool.session.session import Session
    from trio_multispool.storage.protocol import Claim
    from trio_multispool.storage.requests import Notes, Settlement
    from trio_multispool.threads.transaction import Answer, BeforeCommit


_LOG: Final = logging.getLogger("trio_multispool")
_LET_GO: Final = "entry %(entry)s of queue %(queue)s was let go: %(error)s"


@final
class CheckedOutEntry(Generic[Q, M, D]):
    """An entry that nobody else has, until it is settled by `save`, `remove` or `release`: a job.

    Not made by users: `entry.checkout()` and readers give it. Put `async with` around the work:

    ```python
    async with job:
        message = (await job.data.load()).unwrap()
        await send(message)
        (await job.remove()).unwrap()
    ```

    **Leaving the block.** A job that was settled has left already. One that was not, because the block ended, raised or
    was cancelled, goes back to its queue unchanged, whatever is cancelled meanwhile. If settling it was tried and
    failed, and nothing settled it since, a block that ends normally returns it and raises that error: an `Err` that
    nobody looked at must not make the entry go round for ever.

    **If the process dies**, the kernel drops the entry's lock, and recovery puts the entry back. A job that is garbage
    collected is let go in the same way, with a `ResourceWarning`.

    Settling a job twice raises `RuntimeError`.
    """

    def __init__(  # noqa: PLR0913  # made by the shell alone
        self,
        session: Session[Q, M, D, Any],
        queue: Q,
        claim: Claim,
        metadata: M,
        *,
        on_settled: Callable[[CheckedOutEntry[Q, M, D], str | None], None] | None = None,
        carried: Mapping[str, str] | None = None,
        slot: KeySlot = UNLIMITED,
    ) -> None:
        """Take over a claim. `on_settled` is told the queue that the entry went to, `None` if it was removed.

        `carried` is what the producer sent along for the instrumentation; `slot` ends when the job is over.
        """
        self._session = session
        self._queue = queue
        self._claim = claim
        session.hold(claim)
        self._on_settled = on_settled
        self._mutex = threading.Lock()
        self._failure: SpoolError | None = None
        self._let_go = False
        self._attempt: tuple[How, str | None] = (How.LET_GO, None)  # the last that began under the mutex
        self._since: float | None = None
        self._carried = carried
        self._slot = slot
        self._slot_ended = False
        self._around: AbstractContextManager[object] | None = None
        self._prepare_next: Callable[[], Callable[[], None] | None] | None = None
        self._notes_when_saved: Notes | None = None
        self._notes_when_returned: Notes | None = None
        self.metadata: M = metadata
        """The metadata as it was checked out; `save` stores what it is by then, however it was changed."""
        self.data: DataFile[D] = DataFile(session, claim.name, claim, self._mutex)
        """The entry's data."""
        self._over = False

    def __del__(self) -> None:
        """Let go of an entry that nobody has settled; at the end of the interpreter the kernel does."""
        if not self._over and not sys.is_finalizing():
            _warn_and_let_go(self._claim, self._session.path)

    def __repr__(self) -> str:
        """Tell which entry, and how it stands."""
        state = "checked out" if self._claim.state is State.CHECKED_OUT else "settled"
        return f"<CheckedOutEntry {self.name!r} of queue {self._claim.queue!r}, {state}>"

    @property
    def name(self) -> str:
        """The entry's name."""
        return self._claim.name

    @property
    def queue(self) -> Q:
        """The queue that it was checked out of."""
        return self._queue

    @property
    def settled(self) -> bool:
        """Whether the entry has been saved, removed or released."""
        return self._claim.state is not State.CHECKED_OUT

    def update(self, change: Callable[[M], M]) -> None:
        """Replace `metadata`, in memory, by what `change` makes of it; `save` stores it, `release` does not.

        ```python
        job.update(lambda envelope: msgspec.structs.replace(envelope, attempts=envelope.attempts + 1))
        ```
        """
        self.metadata = change(self.metadata)

    async def save(
        self,
        queue: Q,
        metadata: M | Literal[Unchanged.UNCHANGED] = UNCHANGED,
        *,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[None, SaveError]:
        """Settle: move the entry to `queue`, with new metadata.

        `queue` may be the one it came from. `metadata` is what is stored; by default, what `self.metadata` is now. The
        data goes along untouched. `not_before`: the entry waits, and nobody gets it, until then; see `enqueue`.

        `Err(EncodingFailed)`: the codec raised. `Err(OwnershipLost)`: somebody took the entry away by an `…_unsafe`
        operation. `Err(NameTaken)`: there is a file of that name in `queue` already, which only a hand can have put
        there. `Err(NotAdopted)`: it was to wait, in a spool whose other programs need not know that.
        `Err(SyncsRefused)`, and the troubles of the operating system: the job is still yours. `Err(DurabilityUnknown)`:
        the entry has moved, and power loss might undo it. Raises `RuntimeError` if the job was settled before,
        `TypeError` if `queue` is none of the spool's, and what `enqueue` raises for a wrong `not_before`.

        **Cancellation**: cancelled means that the job is still yours, unchanged. (asyncio's own cancellation may come
        after the commit: then the `CancelledError` has a note that says so.)
        **Durability**: the new metadata, and the queue that the entry came from, are synced before the move, and the
        new queue after it.

        ```python
        (await job.save(Mail.RETRY)).unwrap()
        ```
        """
        target = self._session.check_queue(queue)
        self._check()
        stored = self.metadata if metadata is UNCHANGED else metadata
        waits_until = due_at(not_before, self._session.now)

        def settlement(before_commit: BeforeCommit) -> Settlement[Claim]:
            raw = self._session.encoding.encode_if_changed(stored, self._claim)
            return Saving(self._claim, target, raw, durability, before_commit, waits_until, self._notes_when_saved)

        answer = await self._settle(Operation.SAVE, How.SAVED, settlement, target)
        if self.settled:
            self.metadata = stored
        return answer

    async def _save_as_it_was(self, queue: str, due_at: float | None, notes: Notes) -> Result[None, SaveError]:  # pyright: ignore[reportUnusedFunction]  # `reader.retries` does
        """Settle: move the entry to a queue with the metadata that it was checked out with, and with notes."""

        def settlement(before_commit: BeforeCommit) -> Settlement[Claim]:
            return Saving(self._claim, queue, None, None, before_commit, due_at, notes)

        return await self._settle(Operation.SAVE, How.SAVED, settlement, queue)

    async def remove(self, *, durability: Durability | None = None) -> Result[None, RemoveError]:
        """Settle: delete the entry and its data.

        `Err(OwnershipLost)`: somebody took the entry away by an `…_unsafe` operation. `Err(SyncsRefused)`, and the
        troubles of the operating system: the job is still yours. `Err(DurabilityUnknown)`: the entry is removed, and
        power loss might bring it back. Raises `RuntimeError` if the job was settled before.

        **Cancellation**: cancelled means that the job is still yours. (asyncio's own: see `save`.)
        **Durability**: the queue is synced before the metadata is unlinked, and the directory that it was in before
        the data goes.

        ```python
        (await job.remove()).unwrap()
        ```
        """
        self._check()

        def settlement(before_commit: BeforeCommit) -> Settlement[Claim]:
            return Removing(self._claim, durability, before_commit)

        return await self._settle(Operation.REMOVE, How.REMOVED, settlement, None)

    async def release(self) -> Result[None, ReleaseError]:
        """Settle: put the entry back in the queue it came from, with the metadata that it was checked out with.

        `Err(OwnershipLost)`: somebody took the entry away by an `…_unsafe` operation. `Err(NameTaken)`: the queue has a
        second entry of that name; this one is left to recovery. Raises `RuntimeError` if the job was settled before.

        **Cancellation**: cancelled means that the job is still yours; leaving its block releases it.
        **Durability**: needs none. If power loss undoes it, recovery puts the entry back again.

        ```python
        (await job.release()).unwrap()
        ```
        """
        self._check()

        def settlement(_before_commit: BeforeCommit) -> Settlement[Claim]:
            return Releasing(self._claim, self._notes_when_returned)

        return await self._settle(Operation.RELEASE, How.RELEASED, settlement, self._claim.queue)

    async def progress(self, done: float, message: str = "") -> Result[None, OwnershipLost | Trouble]:
        """Tell how far the work on the entry is. `multispool ls`, `show` and `top` show it.

        The same as `job.data.progress`, which handlers have. `Err(OwnershipLost)`: somebody took the entry away by an
        `…_unsafe` operation. `Err(OutOfSpace)` and the other troubles of the operating system: it is not shown. Raises
        `ValueError` if `done` is not from 0 to 1, and `RuntimeError` if the job was settled before.

        **Cancellation**: cancelled means that it was not told.
        **Durability**: none; power loss returns the entry anyway.

        ```python
        (await job.progress(0.4, "converting")).unwrap()
        ```
        """
        return await self.data.progress(done, message)

    async def _settle(
        self,
        operation: Operation,
        how: How,
        settlement: Callable[[BeforeCommit], Settlement[Claim]],
        destination: str | None,
    ) -> Answer[None]:
        claim_next = None if self._prepare_next is None else self._prepare_next()

        def once(before_commit: BeforeCommit) -> Generator[Settlement[Claim]]:
            with self._mutex:  # another task may be writing the job's data in another thread
                self._check()
                self._attempt = how, destination
                yield settlement(before_commit)
            self._slot_ended |= self._slot.end()  # so that the next one may be of the same key
            if claim_next is not None:
                claim_next()

        began = self._session.hooks.now()
        try:
            answer = await self._session.settle(f"{operation.value} of entry {self.name}", once, of=self._claim)
        except BaseException:  # passed on
            self._tell_if_settled(destination, None, began)
            raise
        self._tell_if_settled(destination, answer, began)
        self._failure = answer.error if isinstance(answer, Err) else None
        self._tell_if_failed(operation, answer, began)
        return answer

    def _claim_next_with(self, prepare: Callable[[], Callable[[], None] | None]) -> None:  # pyright: ignore[reportUnusedFunction]  # `reader.pool` does
        """Have the thread that settles this call what `prepare` returns then, when it is settled."""
        self._prepare_next = prepare

    def _retried(self, attempt: int, history: bytes | None) -> None:  # pyright: ignore[reportUnusedFunction]  # `reader.retries` does
        """Have a return strike out an attempt that is begun, leaving the history before, and a save the history."""
        self.data._attempt = attempt  # noqa: SLF001  # a job and its data
        self._notes_when_saved = {ATTEMPTS: None}
        self._notes_when_returned = {ATTEMPTS: None if history is None else bytes(history)}

    def _check(self) -> None:
        if self.settled or self._let_go:
            how = "settled" if self.settled else "let go"
            message = f"entry {self.name!r} was {how} before; a job is settled once"
            raise RuntimeError(message)

    def _tell_if_settled(self, destination: str | None, answer: Answer[None] | None, began: float) -> None:
        if self._over or not (self.settled or self._let_go):
            return
        self._over = True
        if self._slot.end() or self._slot_ended:
            self._session.changes.tell(self._claim.queue)
        if self._on_settled is not None:
            self._on_settled(self, destination)
        how, _ = self._attempt
        if how is How.RELEASED and self._claim.due_at is not None:  # for stores that do not tell
            self._session.waiting(self._claim.queue).put_back(Due(self._claim.due_at, self.name))
        hooks = self._session.hooks
        if hooks.listening:
            how, destination = self._attempt
            lost = isinstance(answer, Err) and not isinstance(answer.error, DurabilityUnknown)
            if self._let_go or lost:  # over, and yet not as it was tried: another program was quicker
                how, destination = How.LET_GO, None
            hooks.settled(self._claim.queue, self.name, how, destination, began, self._since)

    # For the instrumentation

    def _tell_checked_out(self, began: float) -> None:  # pyright: ignore[reportUnusedFunction]  # `entries.checkout`, `reader.dequeue` do
        hooks = self._session.hooks
        self._since = hooks.now()
        hooks.checked_out(self._claim.queue, self.name, began)

    def _tell_if_failed(self, operation: Operation, answer: Answer[None], began: float) -> None:
        if isinstance(answer, Err):
            self._session.hooks.failed(operation, self._claim.queue, self.name, answer.error, began)

    def _begin_work(self) -> None:
        """Enter what the instrumentation puts around the work on the entry, unless that has been done."""
        if self._around is None:
            self._around = self._session.hooks.begin_working(self._claim.queue, self.name, self._carried or {})

    def _end_work(self, raised: BaseException | None) -> None:
        """Leave it, if it was entered."""
        around, self._around = self._around, None
        if around is not None:
            _ = around.__exit__(type(raised) if raised else None, raised, raised.__traceback__ if raised else None)

    async def _give_back(self) -> Answer[None]:
        """Release a job that is unsettled; see `give_back`."""
        failures = await give_back(self._session, [self])
        return Err(failures[0]) if failures else Ok(None)

    def _begin_giving_back(self) -> bool:
        """Forget that settling failed, and tell whether there is anything to give back."""
        self._failure = None
        if self.settled or self._let_go:
            return False
        if self._session.closed:
            reason = "the spool was closed before"
            path, queue = self._session.path, self._claim.queue
            log(_LOG.warning, Event.LET_GO, path, _LET_GO, queue=queue, entry=self.name, error=reason)
            self._end_giving_back(None, self._session.hooks.now())
            return False
        return True

    def _giving_back(self, _before_commit: BeforeCommit) -> Generator[Settlement[Claim]]:
        with self._mutex:
            if not self.settled:
                self._attempt = How.RELEASED, self._claim.queue
                yield Releasing(self._claim, self._notes_when_returned)

    def _end_giving_back(self, answer: Answer[None] | None, began: float) -> None:
        if not self.settled:
            self._let_go = True
            self._claim.abandon()
        self._tell_if_settled(self._claim.queue, answer, began)
        if answer is not None:
            self._tell_if_failed(Operation.RELEASE, answer, began)

    async def __aenter__(self) -> CheckedOutEntry[Q, M, D]:
        """Return the job. No checkpoint: were it cancelled here, the block's end would never come."""
        self._begin_work()
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Return the entry to its queue if it has not been settled."""
        try:
            await self._leave(exception)
        except BaseException as raised:  # a cancellation too ends the work, and goes on
            take_over_notes(raised, exception)
            self._end_work(raised)
            raise
        self._end_work(exception)

    async def _leave(self, exception: BaseException | None) -> None:
        if self.settled or self._let_go:
            if self._prepare_next is None:  # else settling it was a checkpoint a moment ago
                await cancel_shielded_checkpoint()
            return
        failure = self._failure
        answer = await self._give_back()
        if isinstance(answer, Err):
            failure = answer.error
        if failure is not None:
            if exception is None:
                raise failure
            exception.add_note(f"entry {self.name!r}: {failure}")


async def give_back(session: Session[Q, M, D, Any], jobs: Iterable[CheckedOutEntry[Q, M, D]]) -> list[SpoolError]:
    """Release the jobs that are unsettled, all together, whatever is cancelled; forget that settling them failed.

    For readers and blocks. What cannot be put back is let go, so that recovery can do it; returns why.
    """
    ours = [job for job in jobs if job._begin_giving_back()]  # noqa: SLF001  # of this module
    if not ours:
        return []
    began = session.hooks.now()
    answers: list[Answer[None] | None] = [None] * len(ours)  # they stay so if asyncio cancels it
    try:
        answers[:] = await session.settle_all(
            [(f"return of entry {job.name}", job._giving_back, job._claim) for job in ours]  # noqa: SLF001
        )
    finally:
        for job, answer in zip(ours, answers, strict=True):
            job._end_giving_back(answer, began)  # noqa: SLF001
    failures: list[SpoolError] = []
    for job, answer in zip(ours, answers, strict=True):
        if isinstance(answer, Err):
            queue = job._claim.queue  # noqa: SLF001
            log(_LOG.error, Event.LET_GO, session.path, _LET_GO, queue=queue, entry=job.name, error=answer.error)
            failures.append(answer.error)
    return failures


def _warn_and_let_go(claim: Claim, path: str) -> None:
    if claim.state is State.CHECKED_OUT and claim.held:
        warnings.warn(
            f"entry {claim.name!r} of spool {path} was never settled; put `async with job:` around the work",
            ResourceWarning,
            stacklevel=2,
            source=claim,
        )
        claim.abandon()
