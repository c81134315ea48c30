"""Checks out entries for the tasks of one pool: several in one thread hop, and ahead of need with `prefetch`.

Theory. One task, in the reader's nursery, checks entries out; the pool's tasks ask it for them. Tasks that ask during a
hop are answered together from the next hop, which takes as many entries as are asked for. So the number of hops does
not grow with the number of tasks, and no more is in hand than the tasks can work on. With `prefetch`, that many more
entries are kept ready. They are fetched while handlers are at work, once half of them are gone.

Entries that are ready and not begun go back as soon as the reader is stopped, and at the end of the iteration. If a
task that asked is cancelled, nobody has to be told: its entry is ready for other tasks, until the end.
"""

from __future__ import annotations

import collections
import contextlib
from typing import TYPE_CHECKING, Generic, final

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from trio_multispool.model.results import Err, Ok
from trio_multispool.model.types import D, M, Q
from trio_multispool.reader.next_job import NextJobs
from trio_multispool.storage.source import Given
from trio_multispool.threads.loop import keeping_notes_of, whatever_is_cancelled

if TYPE_CHECKING:
    from types import TracebackType

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.errors import Trouble
    from trio_multispool.model.results import Result
    from trio_multispool.reader.dequeue import Dequeuer


class _Request(Generic[Q, M, D]):
    """One task that asks for a job."""

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.answer: Result[Checkout[Q, M, D] | None, Trouble] = Ok(None)

    def reply(self, answer: Result[Checkout[Q, M, D] | None, Trouble]) -> None:
        self.answer = answer
        self.answered.set()


@final
class Prefetcher(Generic[Q, M, D]):
    """The jobs of one iteration of a reader, shared by several tasks; an async context manager around them."""

    def __init__(self, dequeuer: Dequeuer[Q, M, D], prefetch: int, *, wait: bool) -> None:
        """Begin an iteration. One that does not wait gives no entry twice."""
        self._dequeuer = dequeuer
        self._prefetch = prefetch
        self._wait = wait
        self._given = None if wait else Given()
        self.next_jobs: NextJobs[Q, M, D] | None = None if prefetch else NextJobs(dequeuer, self._given)
        """What the settlements of this iteration check out; `None` if entries are kept ready instead."""
        self._asking: collections.deque[_Request[Q, M, D]] = collections.deque()
        self._ready: collections.deque[Checkout[Q, M, D]] = collections.deque()
        self._dry = False
        self._begun = False
        self._ended = False
        self.failed: bool = False
        """Whether a job was not settled as its handler said."""
        self._bug: BaseException | None = None
        self._demand = anyio.Event()
        self._scope = anyio.CancelScope()
        self._finished = anyio.Event()

    async def __aenter__(self) -> Prefetcher[Q, M, D]:
        """Begin to fetch. No checkpoint."""
        if self._given is not None:
            self._dequeuer.begin_pass(self._given)
        self._dequeuer.begin_fetching(self)
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Return what was fetched and not begun."""
        with keeping_notes_of(exception):
            await self.close()
        bug, self._bug = self._bug, None
        if bug is not None:  # no task has asked since and raised it
            if exception is None:
                raise bug
            exception.add_note(f"while fetching: {bug!r}")

    async def close(self) -> None:
        """Fetch no more, and return what was fetched and not begun, whatever is cancelled. Idempotent."""
        self._end()
        try:
            if self._begun:  # asyncio may have cancelled the task before its first step; if not, it ends at once
                await whatever_is_cancelled(self._finished.wait)
        finally:  # a cancelled task puts its answer back, maybe after fetching has ended
            try:
                await self._dequeuer.give_back(self._ready)
            finally:
                if self.next_jobs is not None:
                    await self.next_jobs.close()

    # For the tasks that ask

    async def next(self) -> Result[Checkout[Q, M, D] | None, Trouble]:
        """Return the next job. `Ok(None)`: the reader was stopped or, without waiting, nothing is there.

        **Cancellation**: cancelled means that nothing was taken.
        """
        if self.next_jobs:
            await checkpoint_if_cancelled()  # the settlement before was a checkpoint
            self._ready.extend(self.next_jobs.take())
        elif self._over or self._ready:  # else it waits anyway
            await checkpoint()
        if not self._over and self._ready:
            job = self._ready.popleft()
            self.poke()
            return Ok(job)
        answer: Result[Checkout[Q, M, D] | None, Trouble] = Ok(None)
        if not self._over:
            answer = await self._ask()
        if self._bug is not None:
            bug, self._bug = self._bug, None
            try:
                raise bug
            finally:
                del bug
        self._dequeuer.check_open()
        return answer

    async def _ask(self) -> Result[Checkout[Q, M, D] | None, Trouble]:
        request = _Request[Q, M, D]()
        self._asking.append(request)
        self._dry = False
        self.poke()
        try:
            await request.answered.wait()
        except BaseException:  # passed on, of any kind: an answer that has come is for others
            if isinstance(request.answer, Ok) and request.answer.value is not None:
                self._ready.appendleft(request.answer.value)
            with contextlib.suppress(ValueError):
                self._asking.remove(request)
            raise
        return request.answer

    def end(self) -> None:
        """Give no more jobs: one has failed, and must not come round at once."""
        self.failed = True
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self.next_jobs is not None:
            self.next_jobs.end()
        self._scope.cancel()

    def poke(self) -> None:
        """Make the fetching task look again for something to do."""
        self._demand.set()

    @property
    def _over(self) -> bool:
        return self._ended or self._dequeuer.stopped

    # The fetching task

    async def fetch(self) -> None:
        """Fetch what is asked for, until the end."""
        self._begun = True
        try:
            with self._scope:
                while not self._over:
                    if self._wanted():
                        self._hand_out(await self._dequeuer.take(self._given, self._wanted, wait=self._wait))
                    else:
                        self._demand = anyio.Event()
                        await self._demand.wait()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001  # raised in a task of the pool
            self._bug = error
        finally:
            self._ended = True
            self._reply_to_all(Ok(None))
            try:
                await self._dequeuer.give_back(self._ready)
            finally:
                self._finished.set()

    def _wanted(self) -> int:
        """Return how many entries are wanted now; also called by the thread that checks them out."""
        room = self._prefetch - len(self._ready)
        if self._asking:
            wanted = len(self._asking) + room
        else:
            wanted = room if room * 2 >= self._prefetch and not self._dry else 0
        return min(wanted, self._dequeuer.most_at_a_time())

    def _hand_out(self, answer: Result[list[Checkout[Q, M, D]], Trouble]) -> None:
        if isinstance(answer, Ok) and answer.value:
            self._ready.extend(answer.value)
            while self._asking and self._ready and not self._over:  # else one that has just failed comes round at once
                self._asking.popleft().reply(Ok(self._ready.popleft()))
            return
        self._dry = True  # until a task asks: trouble that lasts is met again then
        self._reply_to_all(answer if isinstance(answer, Err) else Ok(None))

    def _reply_to_all(self, answer: Result[None, Trouble]) -> None:
        while self._asking:
            self._asking.popleft().reply(answer)
