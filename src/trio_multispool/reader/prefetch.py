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
from anyio.lowlevel import checkpoint

from trio_multispool.model.results import Err, Ok
from trio_multispool.model.types import D, M, Q
from trio_multispool.reader.next_job import Supply
from trio_multispool.threads.loop import whatever_is_cancelled

if TYPE_CHECKING:
    from typing import Self

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.errors import Trouble
    from trio_multispool.model.results import Result
    from trio_multispool.reader.dequeue import Begin
    from trio_multispool.reader.several import AnyDequeuer


class _Request(Generic[Q, M, D]):
    """One task that asks for a job."""

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.answer: Result[Checkout[Q, M, D] | None, Trouble] = Ok(None)

    def reply(self, answer: Result[Checkout[Q, M, D] | None, Trouble]) -> None:
        self.answer = answer
        self.answered.set()


@final
class Prefetcher(Supply[Q, M, D]):
    """The jobs of one iteration of a reader, fetched for several tasks, or ahead of need."""

    def __init__(
        self, dequeuer: AnyDequeuer[Q, M, D], prefetch: int, *, wait: bool, begin: Begin | None = None
    ) -> None:
        """Begin an iteration. Settlements check out nothing if entries are kept ready instead."""
        super().__init__(dequeuer, wait=wait, claims_next=not prefetch, begin=begin)
        self._prefetch = prefetch
        self._asking: collections.deque[_Request[Q, M, D]] = collections.deque()
        self._dry = False
        self._begun = False
        self._demand = anyio.Event()
        self._scope = anyio.CancelScope()
        self._finished = anyio.Event()

    async def __aenter__(self) -> Self:
        """Begin to fetch. No checkpoint."""
        self._dequeuer.begin_fetching(self)
        return self

    async def close(self) -> None:
        """Fetch no more, and return what was fetched and not begun, whatever is cancelled. Idempotent."""
        self.end()
        try:
            if self._begun:  # asyncio may have cancelled the task before its first step; if not, it ends at once
                await whatever_is_cancelled(self._finished.wait)
        finally:  # a cancelled task puts its answer back, maybe after fetching has ended
            await super().close()

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
        """Give no more jobs, and fetch no more."""
        super().end()
        self._scope.cancel()

    def poke(self) -> None:
        """Make the fetching task look again for something to do."""
        self._demand.set()

    # The fetching task

    async def fetch(self) -> None:
        """Fetch what is asked for, until the end."""
        self._begun = True
        try:
            with self._scope:
                while not self._is_over():
                    if self._wanted():
                        await checkpoint()  # tasks that were woken together are about to ask too
                        take = self._dequeuer.take
                        self._hand_out(await take(self._given, self._wanted, wait=self._wait, begin=self._begin))
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
        return min(wanted, self._dequeuer.session.storage.at_a_time())

    def _hand_out(self, answer: Result[list[Checkout[Q, M, D]], Trouble]) -> None:
        if isinstance(answer, Ok) and answer.value:
            self._ready.extend(answer.value)
            # Not when it is over: one that has just failed would come round at once.
            while self._asking and self._ready and not self._is_over():
                self._asking.popleft().reply(Ok(self._ready.popleft()))
            return
        self._dry = True  # until a task asks: trouble that lasts is met again then
        answer.ignore()  # the caller of the iteration is handed it anew
        self._reply_to_all(answer if isinstance(answer, Err) else Ok(None))

    def _reply_to_all(self, answer: Result[None, Trouble]) -> None:
        while self._asking:
            self._asking.popleft().reply(answer)
