"""How one reader takes entries from its queue: its check-outs, its waits, and all that it has in hand.

A reader's loops (`pool`) and the tasks that fetch for its pools (`prefetch`) get their entries here. This module
decides when to look, when to wait, and when to recover entries of dead owners. Recovery has no task of its own: it
shares the hop of a listing.
"""

from __future__ import annotations

import contextlib
import functools
import math
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, final

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from trio_multispool.entries.checkout import Checkout, give_back
from trio_multispool.entries.claimer import Claimer
from trio_multispool.instrumentation import Operation
from trio_multispool.model.names import sorts_last
from trio_multispool.model.results import Err, Ok, peek
from trio_multispool.model.types import D, M, Q
from trio_multispool.session.changes import Polling
from trio_multispool.session.pauses import LOOK_EVERY
from trio_multispool.session.session import Recoveries
from trio_multispool.storage.source import Given, Look, NothingLeft
from trio_multispool.threads.batches import Whole
from trio_multispool.threads.loop import apart, take_over_notes, to_raise, whatever_is_cancelled
from trio_multispool.threads.transaction import Withdrawn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from anyio.abc import TaskGroup

    from trio_multispool.entries.claimer import Claimed
    from trio_multispool.entries.key_limits import KeyLimiter
    from trio_multispool.errors import SpoolError, Trouble
    from trio_multispool.model.attempts import Begun, Mark
    from trio_multispool.model.results import Result
    from trio_multispool.session.session import Session
    from trio_multispool.storage.handles import Claim
    from trio_multispool.threads.batches import Batches
    from trio_multispool.threads.transaction import BeforeCommit


RECOVERY_INTERVAL: Final = 1.0
"""The shortest time between two looks of a spool's readers for entries whose owner has died, in seconds."""


SHORTEST_WAIT: Final = 0.001
"""The shortest wait for an entry to be due, in seconds: clocks do not agree to the last digit."""


class Begin(Protocol):
    """Begins an attempt at each entry that is checked out, in that thread."""

    def mark(self, queue: str) -> Mark:
        """Return an attempt that begins now at an entry of a queue, for the store to note if it can."""
        ...

    def begin(self, claim: Claim) -> Begun:
        """Begin an attempt at an entry that was just checked out."""
        ...


_Claim: TypeAlias = "Callable[[Look, BeforeCommit], list[Claimed[M]] | NothingLeft]"


def the_one(taken: Result[list[Checkout[Q, M, D]], Trouble]) -> Result[Checkout[Q, M, D] | None, Trouble]:
    """Return the only entry of a take of one, or `None`."""
    return taken if isinstance(taken, Err) else Ok(taken.value[0] if taken.value else None)


class Closing(Protocol):
    """Holds entries that an iteration has checked out and not begun, for example."""

    def poke(self) -> None:
        """Look again for something to do: the reader was stopped."""
        ...

    async def close(self) -> None:
        """Check out no more, and return what was not begun, whatever is cancelled. Idempotent."""
        ...


class Fetcher(Closing, Protocol):
    """Runs in a task of the reader's nursery: fetches for an iteration, for example."""

    async def fetch(self) -> None:
        """Fetch until the end."""
        ...


@final
class Dequeuer(Generic[Q, M, D]):
    """The check-outs of one reader, from `open` to `close`; used in its event loop."""

    claims_next: bool = True
    """Whether a settlement may check out the next entry in passing."""

    def __init__(
        self, session: Session[Q, M, D, Any], queue: Q, poll_interval: float, key_limiter: KeyLimiter[M] | None = None
    ) -> None:
        """Begin with nothing in hand."""
        self.queue: Q = queue
        self.stopped: bool = False
        """Whether the reader takes no more entries."""
        self.closed: bool = False
        self.session: Session[Q, M, D, Any] = session
        self._poll_interval = poll_interval
        self._key_limiter = key_limiter
        self._claimer: Claimer[M] | None = None
        self._jobs: dict[Checkout[Q, M, D], None] = {}
        self._unreturned: list[SpoolError] = []
        self._passes: list[weakref.ref[Given]] = []
        self._closing: weakref.WeakSet[Closing] = weakref.WeakSet()
        self._tasks: TaskGroup | None = None
        self._takes = 0
        self._waits: set[anyio.CancelScope] = set()
        self._idle: anyio.Event | None = None
        self._recoveries: Recoveries = session.recoveries.setdefault(queue.value, Recoveries())
        self._recovering: weakref.WeakKeyDictionary[Look, int] = weakref.WeakKeyDictionary()
        self._is_first_look = True
        self._name: str = queue.value
        self._batch: Batches[Any] = session.takes(self._name)
        self._iterations: set[anyio.CancelScope] = set()
        self._all_iterated = anyio.Event()

    def __len__(self) -> int:
        """Count what is in hand."""
        return len(self._jobs)

    def open(self, tasks: TaskGroup) -> None:
        """Begin, with a nursery for the fetchers."""
        self.session.changes.join(self._name)
        self.session.cancellations.join()
        names = self.session.spoolable.names
        new_ones_last = names is None or sorts_last(names)
        source = self.session.storage.source(self.queue.value, sorts_last=new_ones_last)
        self._claimer = Claimer(self.session, self.queue.value, source, self._key_limiter)
        self._tasks = tasks

    def check_open(self) -> None:
        """Raise unless the reader's block has been entered and not left."""
        if self._tasks is None:
            raise RuntimeError("put `async with` around a reader before using it")
        if self.closed:
            raise anyio.ClosedResourceError(f"the block of the reader of queue {self.queue.value!r} has been left")

    def wake(self) -> None:
        """End every wait, for a change or for a thread: the reader was stopped."""
        for scope in self._waits:
            scope.cancel()
        self._batch.withdraw(self)
        for closing in self._closing:
            closing.poke()

    def begin_pass(self, given: Given) -> None:
        """Begin a pass: a name that was given is kept for as long as its entry may come back to the queue."""
        self._passes = [each for each in self._passes if each() is not None]
        self._passes.append(weakref.ref(given))

    def begin_fetching(self, fetcher: Fetcher) -> None:
        """Run a fetcher, in a task of the reader's nursery."""
        self.check_open()
        assert self._tasks is not None, "checked above"  # noqa: S101  # for the type checkers
        self.close_at_the_end(fetcher)
        _ = self._tasks.start_soon(apart, fetcher.fetch)

    def close_at_the_end(self, closing: Closing) -> None:
        """Poke a holder of check-outs when the reader is stopped, and close it when the block is left."""
        self._closing.add(closing)

    @property
    def queues(self) -> tuple[Q, ...]:
        """The queue that it reads."""
        return (self.queue,)

    @contextlib.contextmanager
    def iterating(self, scope: anyio.CancelScope) -> Generator[None]:
        """Have `close` end what runs in the block, within the scope, and wait for it: it has entries in hand."""
        self._iterations.add(scope)
        try:
            yield
        finally:
            self._iterations.discard(scope)
            if not self._iterations:
                self._all_iterated.set()

    # Taking

    async def dequeue(
        self, given: Given | None, *, wait: bool, begin: Begin | None = None
    ) -> Result[Checkout[Q, M, D] | None, Trouble]:
        """Check out one entry; see `take`."""
        return the_one(await self.take(given, lambda: 1, wait=wait, begin=begin))

    async def take(
        self, given: Given | None, wanted: Callable[[], int], *, wait: bool, begin: Begin | None = None
    ) -> Result[list[Checkout[Q, M, D]], Trouble]:
        """Check out up to `wanted()` entries, and at least one. An empty list: the reader was stopped.

        Without `wait`, an empty list may also mean that nothing was there. Names `given` in this pass are passed over.
        `begin` begins an attempt at each entry, in the same thread.
        """
        self.check_open()
        self._takes += 1
        try:
            polling = Polling(self._poll_interval) if wait else None
            return await self._take(given, functools.partial(self._claim, wanted, begin), polling)
        finally:
            self._takes -= 1
            if self._idle is not None and not self._takes:
                self._idle.set()

    async def _take(  # noqa: C901  # every ending is a line
        self, given: Given | None, claim: _Claim[M], polling: Polling | None
    ) -> Result[list[Checkout[Q, M, D]], Trouble]:
        changes, wait, woken = self.session.changes, polling is not None, False
        look: Look | None = None
        try:
            look, seen = self._look(given, waits=wait), changes.seen(self._name)
            while not self.stopped:
                found = await self._ask(look, claim)
                if isinstance(found, NothingLeft):
                    if polling is None and found.in_question:
                        look = self._look(given, waits=False)
                        continue
                    if polling is None:
                        return Ok([])
                    if self.stopped:  # during the hop, when there was no wait to end
                        continue
                    if woken and found.passed_over:
                        changes.hand_on(self._name, to_any=False)
                    await self._wait(polling, seen, found)
                    look, seen, woken = self._look(given, waits=wait), changes.seen(self._name), True
                elif found is not None:
                    if woken and (isinstance(found, Err) or self.claimer.source.is_any_left()):
                        changes.hand_on(self._name)
                    return found
            self.check_open()  # stopped before, or while it waited for a thread or a change
            await checkpoint()
            if woken:
                changes.hand_on(self._name)
            return Ok([])
        except BaseException:  # a cancellation, or a bug
            if look is not None and self._recovering.pop(look, None) is not None:  # it did not come to that
                self._is_first_look, self._recoveries.begun_at = True, -math.inf
            if woken:
                changes.hand_on(self._name)
            raise

    async def _ask(self, look: Look, claim: _Claim[M]) -> Result[list[Checkout[Q, M, D]], Trouble] | NothingLeft | None:
        """Check out the next entries in a thread; `None`: ask again, unless the reader was stopped."""
        hooks = self.session.hooks
        began = hooks.now() if hooks.listening else 0.0
        try:
            answer = await self._batch.run(
                f"check-out from {self._name}",
                Whole(functools.partial(claim, look)),
                undo=functools.partial(self._undo, look=look),
                owner=self,
            )
        except Withdrawn:
            return None
        if isinstance(answer, Err):
            hooks.failed(Operation.CHECK_OUT, self._name, None, peek(answer), began)
            return answer
        if isinstance(answer.value, NothingLeft):
            return answer.value
        jobs = [self.in_hand(one, began) for one in answer.value]
        if self.closed:  # left by another task while the thread was at work
            await self.give_back(jobs)
            self.check_open()
        return Ok(jobs) if jobs else None

    def _look(self, given: Given | None, *, waits: bool) -> Look:
        """Begin to ask for entries. It may share a listing that is begun from now on, if it need not do more."""
        look, recoveries, now = Look(given, waits=waits), self._recoveries, self.session.running.loop.time()
        if self._is_first_look or now - recoveries.begun_at >= RECOVERY_INTERVAL:
            self._is_first_look = False
            recoveries.begun_at = now
            self._recovering[look] = recoveries.begun
        elif not waits or self.session.changes.told(self._name):
            look.began = self.claimer.source.listings
        return look

    async def _wait(self, polling: Polling, seen: int, found: NothingLeft) -> None:
        """Wait until the queue may have changed since `seen`, an entry is due, or it is time to look again.

        The wall clock says when an entry is due, and it may jump: it is read again now and then.
        """
        changes, queue = self.session.changes, self._name
        if found.paused:
            await self._wait_in_pause(found.next_due)
            return
        told, every, next_at = changes.told(queue), self._poll_interval, found.next_due
        timeout = polling.next_wait(found.listing_took, told=told, held=found.held, busy=found.busy)
        if told and found.announced:
            timeout = every = math.inf
        with self.session.hooks.waiting(queue), anyio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                if next_at is None:
                    await changes.wait(queue, seen, timeout)
                    return
                ends_at = anyio.current_time() + timeout
                while (left := ends_at - anyio.current_time()) > 0 and (until_due := next_at - self.session.now()) > 0:
                    await changes.wait(queue, seen, max(min(left, until_due, every), SHORTEST_WAIT))
                    if changes.seen(queue) != seen or self.stopped or self.closed or self.session.closed:
                        return
            finally:
                self._waits.discard(scope)

    async def _wait_in_pause(self, until: float | None) -> None:
        """Wait until it is time to look whether the queue is still paused."""
        left = math.inf if until is None else until - self.session.now()
        with self.session.hooks.waiting(self._name), anyio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                await anyio.sleep(max(min(left, LOOK_EVERY), SHORTEST_WAIT))
            finally:
                self._waits.discard(scope)

    def in_hand(self, claimed: Claimed[M], began: float) -> Checkout[Q, M, D]:
        """Make a job of a checked-out entry; `began` is when its check-out began, by the clock of the hooks."""
        job = Checkout(self.session, self.queue, claimed, began, on_settled=self._on_settled)
        if not self.closed:  # else it goes back at once
            self._jobs[job] = None
        return job

    @property
    def claimer(self) -> Claimer[M]:
        """What checks the entries out; from `open` on."""
        assert self._claimer is not None, "the reader was entered"  # noqa: S101  # for the type checkers
        return self._claimer

    def _claim(
        self, wanted: Callable[[], int], begin: Begin | None, look: Look, before_commit: BeforeCommit
    ) -> list[Claimed[M]] | NothingLeft:
        """Check out the next entries, in a worker thread."""
        changes, queue, claimer = self.session.changes, self._name, self.claimer
        if self._recovering.pop(look, None) == self._recoveries.begun and not self.stopped:  # none was begun since
            self._recoveries.begun += 1  # what comes back is listed
            self.session.note_recovered(self.session.storage.recover(queue, insist=False))
        self.session.pauses.look()
        if (pause := self.session.pauses.of(queue)) is not None:
            return NothingLeft(0.0, held=False, busy=False, next_due=pause.until, paused=True)
        found = claimer.source.claim(
            look,
            wanted,
            gate=claimer,
            stopped=lambda: self.stopped,
            before_commit=before_commit,
            before_listing=(lambda: changes.watch(queue)) if look.waits else lambda: None,
            attempt=None if begin is None else functools.partial(begin.mark, queue),
        )
        return claimer.finish(found, look, None if begin is None else begin.begin)

    def _undo(self, claimed: list[Claimed[M]] | NothingLeft, look: Look) -> None:
        if isinstance(claimed, list):
            self.claimer.take_back(claimed, look)

    def look_is_due(self) -> bool:
        """Tell whether the next look should also recover entries of dead owners, or look for pauses."""
        pauses = self.session.pauses
        if pauses.are_outdated() or pauses.of(self._name) is not None:
            return True
        return self.session.running.loop.time() - self._recoveries.begun_at >= RECOVERY_INTERVAL

    def _on_settled(self, job: Checkout[Q, M, D], destination: str | None) -> None:
        self._jobs.pop(job, None)
        if destination != self._name:
            for each in self._passes:
                given = each()
                if given is not None:
                    given.discard(job.name)

    # Giving back

    async def give_back(self, jobs: Iterable[Checkout[Q, M, D]]) -> None:
        """Return unsettled jobs, all together, whatever is cancelled; `close` reports those that fail."""
        self._unreturned += await give_back(self.session, list(jobs))

    async def close(self, exception: BaseException | None, *, patient: bool) -> None:
        """End the reader's tasks, and return what it has in hand, while `exception` is leaving its block.

        Iterations in tasks from outside the block are cancelled; if `patient`, somebody else does so in time.
        Entries that could not be returned are raised as errors, or noted on the exception that is raised anyway.
        """
        self.stopped = True
        self.closed = not patient
        self.wake()
        raised: BaseException | None = None
        try:
            for close in (
                self._end_iterations,
                self._end_takes,
                *[each.close for each in self._closing],
                self._return_all,
                self.session.cancellations.leave,
            ):
                try:
                    await close()
                except BaseException as error:  # noqa: BLE001  # raised below: the rest is closed all the same
                    raised = error if raised is None else to_raise(raised, error)
            self.claimer.source.close()
            self.session.changes.leave(self._name)
            self._tell_unreturned(exception or raised)
            if raised is not None:
                take_over_notes(raised, exception)
                raise raised
        finally:
            del raised

    async def _end_takes(self) -> None:
        """Wait for the takes of other tasks: an entry that a thread has by then goes back before the block ends."""
        if self._takes:
            self._idle = anyio.Event()
            await whatever_is_cancelled(self._idle.wait)

    async def _end_iterations(self) -> None:
        """Wait for the iterations of other tasks: what their handlers answer is stored before the block ends."""
        try:
            if self._iterations and not self.closed:
                self._all_iterated = anyio.Event()
                await self._all_iterated.wait()
        finally:
            self.closed = True
            if self._iterations:
                for scope in self._iterations:
                    scope.cancel()
                self._all_iterated = anyio.Event()
                await whatever_is_cancelled(self._all_iterated.wait)

    async def _return_all(self) -> None:
        await self.give_back(self._jobs)
        await cancel_shielded_checkpoint()

    def _tell_unreturned(self, raised: BaseException | None) -> None:
        failures, self._unreturned = self._unreturned, []
        if raised is not None:
            for failure in failures:
                raised.add_note(f"not returned: {failure}")
        elif len(failures) == 1:
            raise failures[0]
        elif failures:
            message = f"{len(failures)} entries could not be returned to queue {self.queue.value!r}"
            raise ExceptionGroup(message, failures)
