"""One open spool, as its handles (entries, jobs, readers) share it: the store, the way into threads, the codecs."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeAlias, cast

import anyio

from trio_multispool.clock import random_fraction
from trio_multispool.errors import CorruptMetadata, SpoolError
from trio_multispool.events import Event, log
from trio_multispool.model.results import Ok
from trio_multispool.model.types import A, D, M, Q, T
from trio_multispool.session.changes import Changes
from trio_multispool.session.encoding import Encoding
from trio_multispool.session.hooks import Hooks
from trio_multispool.storage.singly import release_or_let_go
from trio_multispool.threads.batches import Batches
from trio_multispool.threads.loop import Home
from trio_multispool.threads.offload import Offload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
    from typing import Never

    from trio_multispool.instrumentation import Instrumentation
    from trio_multispool.model.spoolable import Spoolable
    from trio_multispool.storage.handles import Claim, Reservation
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.requests import NewEntry, Recovered, Settlement
    from trio_multispool.threads.batches import Step
    from trio_multispool.threads.transaction import Answer, BeforeCommit


SettlingStep: TypeAlias = "Step[Settlement[Any], None]"
"""A step of a batch that settles one claim."""

_LOG: Final = logging.getLogger("trio_multispool")


class Session(Generic[Q, M, D, A]):
    """One open spool, as its handles see it."""

    def __init__(
        self,
        storage: Storage[Any, Any],
        spoolable: Spoolable[Q, M, D, A],
        limiter: anyio.CapacityLimiter | None,
        instrumentation: Instrumentation | None,
    ) -> None:
        """Take over an open store."""
        self.storage: Storage[Any, Any] = storage
        self.path: str = storage.location
        self.spoolable: Spoolable[Q, M, D, A] = spoolable
        self.encoding: Encoding[Q, M, D, A] = Encoding(spoolable)
        self.hooks: Hooks = Hooks(instrumentation, self.path)
        self._offload = Offload(limiter, in_threads=storage.blocks)
        self._settlements: Batches[Settlement[Any]] = Batches(storage.settle, in_threads=storage.blocks)
        self._enqueuings: Batches[NewEntry[Any]] = Batches(
            storage.enqueue_together,
            in_threads=storage.blocks,
            limiter=self._offload.limiter,
            at_most=storage.at_a_time,
        )
        self._check_outs: Batches[Never] = Batches(_nothing, in_threads=storage.blocks, limiter=self._offload.limiter)
        self.changes: Changes = Changes(storage, self.path)
        self.now: Callable[[], float] = storage.now
        """The wall clock, in seconds since 1970."""
        self.chance: Callable[[], float] = random_fraction
        """A random number from 0 to 1, for jitter."""
        self._home = Home()
        self._mutex = threading.Lock()
        self._running = 0
        self._closed = False
        self._close_storage = weakref.finalize(self, storage.close)
        self._close_storage.atexit = False  # the kernel closes them; a forked child must not wait for a lock here
        self._held: weakref.WeakSet[Claim | Reservation] = weakref.WeakSet()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled, for all handles that share it."""
        message = (
            f"what belongs to the open spool {self.path} cannot be pickled or copied: its locks are this process's; "
            "send the path and the entry's name, and use `Spool.load` and `spool.entry` there"
        )
        raise TypeError(message)

    @property
    def limiter(self) -> anyio.CapacityLimiter:
        """The limiter that operations queue on."""
        return self._offload.limiter

    @property
    def closed(self) -> bool:
        """Whether the spool has been closed."""
        return self._closed

    def close(self) -> None:
        """Take no more operations, and close the store when the last running one has ended. Idempotent."""
        with self._mutex:
            self._closed = True
            idle = not self._running
        self.changes.wake_all()
        if idle:
            self._let_go()

    def check_open(self) -> None:
        """Raise `anyio.ClosedResourceError` if the spool has been closed."""
        if self._closed:
            message = f"the spool {self.path} has been closed"
            raise anyio.ClosedResourceError(message)

    async def run(
        self,
        operation: str,
        work: Callable[[BeforeCommit], T],
        *,
        undo: Callable[[T], None] | None = None,
        interruptible: bool = False,
    ) -> Answer[T]:
        """Run a transaction on the store; see `Offload.run`. Raises `anyio.ClosedResourceError` on a closed spool."""
        self._begin()
        try:
            answer = await self._offload.run(operation, work, undo=undo, interruptible=interruptible)
            return await self._undone_if_closed(operation, answer, undo)
        finally:
            self.hooks.tell_noted()
            self._end()

    async def check_out(
        self, operation: str, work: Callable[[BeforeCommit], T], *, undo: Callable[[T], None]
    ) -> Answer[T]:
        """Do as `run` does, for the check-out of one entry, in one hop with others; see `Batches.run_whole`."""
        self._begin()
        try:
            answer = await self._check_outs.run_whole(operation, work, undo=undo)
            return await self._undone_if_closed(operation, answer, undo)
        finally:
            self.hooks.tell_noted()
            self._end()

    async def _undone_if_closed(self, operation: str, answer: Answer[T], undo: Callable[[T], None] | None) -> Answer[T]:
        """Take an effect back, and raise `anyio.ClosedResourceError`, if the spool was closed meanwhile."""
        if self._closed and undo is not None and isinstance(answer, Ok):
            value = answer.value
            _ = await self._offload.finish(operation, lambda: undo(value))
            self.check_open()
        return answer

    async def finish(self, operation: str, work: Callable[[], T]) -> Answer[T]:
        """Run something that releases to its end; see `Offload.finish`."""
        self._begin()
        try:
            return await self._offload.finish(operation, work)
        finally:
            self._end()

    async def settle(self, operation: str, step: SettlingStep, *, of: Claim, insist: bool) -> Answer[None]:
        """Settle a claim, together with others; see `Batches.run`."""
        self._begin()
        try:
            return await self._settlements.run(operation, step, of=of, insist=insist)
        finally:
            self.hooks.tell_noted()  # of what was checked out in the same hop
            self._end()

    async def settle_all(
        self, works: Sequence[tuple[str, SettlingStep, Claim]], answers: MutableMapping[int, Answer[None]]
    ) -> None:
        """Settle several claims, whatever is cancelled; see `Batches.finish`."""
        self._begin()
        try:
            await self._settlements.finish(works, answers)
        finally:
            self._end()

    async def enqueue(self, operation: str, step: Step[NewEntry[Any], T], *, of: object) -> Answer[T]:
        """Enqueue together with others; see `Batches.run`. No two in one batch have the same `of`."""
        self._begin()
        try:
            return await self._enqueuings.run(operation, step, of=of)
        finally:
            self._end()

    def _begin(self) -> None:
        if self._home.is_elsewhere():
            message = (
                f"the spool {self.path} is used in another event loop than the one that it was opened in; "
                "open it there too, by `Spool.load`: any number of them may share the directory"
            )
            raise RuntimeError(message)
        with self._mutex:
            self.check_open()
            self._running += 1

    def _end(self) -> None:
        with self._mutex:
            self._running -= 1
            last = self._closed and not self._running
        if last:
            self._let_go()

    def hold(self, held: Claim | Reservation) -> None:
        """Let go of a claim or reservation when the spool is closed, if it is still held then."""
        self._held.add(held)

    def _let_go(self) -> None:
        for held in list(self._held):
            held.abandon()
        _ = self._close_storage()

    def check_queue(self, queue: Q) -> str:
        """Return the queue's name; raises `TypeError` if it is not a queue of this spool."""
        if not isinstance(queue, self.spoolable.queues):
            message = f"{queue!r} is no member of {self.spoolable.queues.__name__}, the queues of this spool"
            raise TypeError(message)
        return cast("str", queue.value)

    def decode_or_set_aside(self, claim: Claim) -> M:
        """Return a claim's metadata; if it cannot be decoded, quarantine the entry and raise `CorruptMetadata`."""
        try:
            return self.encoding.decode(claim.queue, claim.name, claim.metadata)
        except CorruptMetadata as error:
            self._set_aside(claim, error)
            raise
        except BaseException:  # nobody will get the claim, whatever it was
            self.release_or_let_go(claim)
            raise

    def _set_aside(self, claim: Claim, error: CorruptMetadata) -> None:
        name, queue = claim.name, claim.queue
        try:
            self.storage.quarantine(claim, str(error))
        except SpoolError as failure:
            message = "entry %(entry)s of queue %(queue)s could not be set aside: %(reason)s: %(error)s"
            reason, path = error.reason, self.path
            log(
                _LOG.warning,
                Event.NOT_QUARANTINED,
                path,
                message,
                queue=queue,
                entry=name,
                error=failure,
                reason=reason,
            )
            error.add_note(f"it could not be set aside, and stays in its queue: {failure}")
            self.release_or_let_go(claim)
            return
        message = "entry %(entry)s of queue %(queue)s is set aside in quarantine: %(reason)s"
        reason, path = error.reason, self.path
        log(_LOG.warning, Event.QUARANTINED, path, message, queue=queue, entry=name, error=error, reason=reason)
        self.hooks.note_quarantined(queue, name, error.reason)

    def carried(self, claim: Claim) -> Mapping[str, str] | None:
        """Return what the producer sent along with an entry, if the instrumentation asks for it; in a worker thread."""
        return self.storage.carrier(claim.name) if self.hooks.carries else None

    def note_recovered(self, recovered: Iterable[Recovered]) -> None:
        """Log what recovery did, and note it for the hooks; in any thread, with `tell_noted` in the loop after it."""
        for one in recovered:
            if one.queue is None:
                message = "what was left of %(entry)s, which is no entry, was collected"
                log(_LOG.debug, Event.COLLECTED, self.path, message, entry=one.name)
            else:
                message = "entry %(entry)s is back in queue %(queue)s: its owner died"
                log(_LOG.info, Event.RECOVERED, self.path, message, queue=one.queue, entry=one.name)
            self.hooks.note_recovered(one.name, one.queue)

    def release_or_let_go(self, claim: Claim) -> None:
        """Put back an entry that nobody will get; if that fails, recovery does it."""
        release_or_let_go(self.storage, claim)


def _nothing(_requests: Sequence[Never]) -> list[BaseException | None]:
    """Do what steps ask for that ask for nothing."""
    return []
