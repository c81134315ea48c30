"""Take entries out of several queues, each in its share, for one pool.

Theory. Each queue has a *pass*: how many entries it has given, divided by its weight. Who wants entries gets them from
the queue with the lowest pass, so that in the long run each gives in proportion to its weight (stride scheduling:
Waldspurger and Weihl, 1995). A queue that has nothing is skipped, so the others have all; when it has something again,
it begins where the others are: it cannot save up. None starves, because a pass that stays is soon the lowest.

A question to each queue is a hop. So one that had nothing is not asked again for `EMPTY_FOR` seconds, unless the reader
is told that something came. If none has anything, a take waits in each of them, until one of them has.
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, final

from anyio.lowlevel import checkpoint

from trio_multispool.model.results import Err, Ok
from trio_multispool.model.types import D, M, Q
from trio_multispool.reader.dequeue import Dequeuer, the_one
from trio_multispool.threads.loop import in_several_tasks, to_raise

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    import anyio
    from anyio.abc import TaskGroup

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.errors import Trouble
    from trio_multispool.model.results import Result
    from trio_multispool.reader.dequeue import Begin, Closing, Fetcher
    from trio_multispool.session.session import Session
    from trio_multispool.storage.source import Given

EMPTY_FOR: Final = 0.05
"""For so long, in seconds, a queue that had nothing is taken for empty, unless something is told of it."""


@final
class _Share(Generic[Q, M, D]):
    """One queue, and how much of the whole it has given."""

    def __init__(self, dequeuer: Dequeuer[Q, M, D], weight: float) -> None:
        self.dequeuer: Dequeuer[Q, M, D] = dequeuer
        self.weight: float = weight
        self.passed: float = 0.0
        self._empty: tuple[int, float] = (-1, -math.inf)  # as of which change, and since when

    def seems_empty(self) -> bool:
        """Tell whether it had nothing a moment ago."""
        session = self.dequeuer.session
        seen, since = self._empty
        fresh = session.running.loop.time() - since < EMPTY_FOR
        return fresh and seen == session.changes.seen(self.dequeuer.queue.value)

    def found_empty(self) -> None:
        """Take note that it had nothing."""
        session = self.dequeuer.session
        self._empty = session.changes.seen(self.dequeuer.queue.value), session.running.loop.time()


@final
class DequeuerOfSeveral(Generic[Q, M, D]):
    """The check-outs of a reader of several queues, as `Dequeuer` has them of one; used in its event loop."""

    claims_next: bool = False
    """A settlement checks nothing out: whose turn it is, is known only when somebody asks."""

    def __init__(self, dequeuers: Mapping[Dequeuer[Q, M, D], float]) -> None:
        """Take over the dequeuers of the queues, each with its weight."""
        self._shares = [_Share(dequeuer, weight) for dequeuer, weight in dequeuers.items()]
        self._first: Dequeuer[Q, M, D] = self._shares[0].dequeuer
        self.session: Session[Q, M, D, Any] = self._first.session

    def __len__(self) -> int:
        """Count what is in hand."""
        return sum(map(len, self._each()))

    def _each(self) -> list[Dequeuer[Q, M, D]]:
        return [share.dequeuer for share in self._shares]

    @property
    def queues(self) -> tuple[Q, ...]:
        """The queues, in the order in which they were given."""
        return tuple(dequeuer.queue for dequeuer in self._each())

    @property
    def stopped(self) -> bool:
        """Whether the reader takes no more entries."""
        return self._first.stopped

    @stopped.setter
    def stopped(self, stopped: bool) -> None:
        for dequeuer in self._each():
            dequeuer.stopped = stopped

    @property
    def closed(self) -> bool:
        """Whether the reader's block has been left."""
        return self._first.closed

    def open(self, tasks: TaskGroup) -> None:
        """Begin, with a nursery for the fetchers."""
        for dequeuer in self._each():
            dequeuer.open(tasks)

    def check_open(self) -> None:
        """Raise unless the reader's block has been entered and not left."""
        self._first.check_open()

    def wake(self) -> None:
        """End every wait: the reader was stopped."""
        for dequeuer in self._each():
            dequeuer.wake()

    def begin_pass(self, given: Given) -> None:
        """Begin a pass over all queues."""
        for dequeuer in self._each():
            dequeuer.begin_pass(given)

    def begin_fetching(self, fetcher: Fetcher) -> None:
        """Run a fetcher, in a task of the reader's nursery."""
        self._first.begin_fetching(fetcher)

    def close_at_the_end(self, closing: Closing) -> None:
        """Poke a holder of check-outs when the reader is stopped, and close it when the block is left."""
        self._first.close_at_the_end(closing)

    @contextlib.contextmanager
    def iterating(self, scope: anyio.CancelScope) -> Generator[None]:
        """Have `close` end what runs in the block, and wait for it."""
        with contextlib.ExitStack() as stack:
            for dequeuer in self._each():
                stack.enter_context(dequeuer.iterating(scope))
            yield

    # Taking

    async def dequeue(
        self, given: Given | None, *, wait: bool, begin: Begin | None = None
    ) -> Result[Checkout[Q, M, D] | None, Trouble]:
        """Check out one entry; see `take`."""
        return the_one(await self.take(given, lambda: 1, wait=wait, begin=begin))

    async def take(
        self, given: Given | None, wanted: Callable[[], int], *, wait: bool, begin: Begin | None = None
    ) -> Result[list[Checkout[Q, M, D]], Trouble]:
        """Check out up to `wanted()` entries, of whichever queues' turn it is; otherwise as `Dequeuer.take`."""
        while True:
            taken = await self._take_some(given, max(wanted(), 1), begin, ask_all=not wait)
            if isinstance(taken, Err) or taken.value or not wait or self.stopped:
                return taken
            taken = await self._wait(given, begin)
            if isinstance(taken, Err) or taken.value or self.stopped:
                return taken

    async def _take_some(
        self, given: Given | None, wanted: int, begin: Begin | None, *, ask_all: bool
    ) -> Result[list[Checkout[Q, M, D]], Trouble]:
        found: list[Checkout[Q, M, D]] = []
        left = [share for share in self._shares if ask_all or not share.seems_empty()]
        try:
            while left and len(found) < wanted and not self.stopped:
                for share, number in self._turns(left, wanted - len(found)):
                    count = functools.partial(int, number)
                    taken = await share.dequeuer.take(given, count, wait=False, begin=begin)
                    if isinstance(taken, Err):
                        return Ok(found) if found else taken  # the next take meets it again
                    self._note(share, taken.value)
                    found += taken.value
                    if len(taken.value) < number:
                        left.remove(share)
        except BaseException:  # passed on, of any kind: nobody will get these
            await self.give_back(found)
            raise
        if not found:
            await checkpoint()
        return Ok(found)

    def _turns(self, shares: Sequence[_Share[Q, M, D]], wanted: int) -> list[tuple[_Share[Q, M, D], int]]:
        """Return how many entries each queue is to give, the one whose turn it is first."""
        passes = {share: share.passed for share in shares}
        numbers: dict[_Share[Q, M, D], int] = {}
        for _ in range(wanted):
            share = min(shares, key=passes.__getitem__)
            passes[share] += 1 / share.weight
            numbers[share] = numbers.get(share, 0) + 1
        return list(numbers.items())

    def _note(self, share: _Share[Q, M, D], taken: Sequence[object]) -> None:
        """Take note of what a queue has given. One that has nothing saves nothing up for later."""
        if taken:
            share.passed += len(taken) / share.weight
        else:
            share.found_empty()
            share.passed = max(share.passed, min(each.passed for each in self._shares if each is not share))

    async def _wait(self, given: Given | None, begin: Begin | None) -> Result[list[Checkout[Q, M, D]], Trouble]:
        """Wait until one of the queues has an entry; check it out."""
        answers: list[tuple[_Share[Q, M, D], Result[list[Checkout[Q, M, D]], Trouble]]] = []
        shares = iter(self._shares)

        async def wait(all_of_them: anyio.CancelScope) -> None:
            share = next(shares)
            answers.append((share, await share.dequeuer.take(given, lambda: 1, wait=True, begin=begin)))
            all_of_them.cancel()

        found: list[Checkout[Q, M, D]] = []
        try:
            _ = await in_several_tasks(len(self._shares), wait)
        except BaseException as raised:  # passed on, of any kind: nobody will get these
            await self.give_back(job for _, answer in answers if isinstance(answer, Ok) for job in answer.value)
            if isinstance(raised, BaseExceptionGroup) and len(raised.exceptions) == 1:
                raise raised.exceptions[0] from None  # as from the one queue of another reader
            raise
        for share, answer in answers:
            if isinstance(answer, Ok):
                self._note(share, answer.value)
                found += answer.value
        if not found:
            await checkpoint()
        failures = [answer for _, answer in answers if isinstance(answer, Err)]
        return failures[0] if failures and not found else Ok(found)

    # Giving back

    async def give_back(self, jobs: Iterable[Checkout[Q, M, D]]) -> None:
        """Return unsettled jobs, all together, whatever is cancelled; `close` reports those that fail."""
        await self._first.give_back(jobs)

    async def close(self, exception: BaseException | None, *, patient: bool) -> None:
        """End all, as `Dequeuer.close` does for one."""
        raised: BaseException | None = None
        self.stopped = True
        try:
            for dequeuer in self._each():
                try:
                    await dequeuer.close(exception, patient=patient)
                except BaseException as error:  # noqa: BLE001  # raised below: the others are closed all the same
                    raised = error if raised is None else to_raise(raised, error)
            if raised is not None:
                raise raised
        finally:
            del raised


AnyDequeuer: TypeAlias = Dequeuer[Q, M, D] | DequeuerOfSeveral[Q, M, D]
"""The check-outs of a reader, of one queue or of several."""
