"""`Supply`: the jobs of one iteration. It checks out the next entry in the thread hop that settles the one before.

Theory. A handler's task waits for its settlement, and then would wait again for its next entry. Both are file-system
calls, so the thread that settles an entry also checks out the next one before it returns. The task waits once, and the
number of hops is halved. No more is in hand than before, because the settled entry is in nobody's hand any more.

This takes only what the reader's listing still has. The ordinary check-out lists the queue, waits, recovers what dead
owners held, and reports trouble. The task falls back on it if it finds nothing here.

A task may not come for its entry: it is cancelled, or the iteration has ended. The entry is then returned at the end,
like all that an iteration has in hand and has not begun. An early check-out that fails with a `SpoolError` is dropped:
the entry is where it was, and the next ordinary check-out meets the same error.
"""

from __future__ import annotations

import abc
import collections
import functools
import threading
from typing import TYPE_CHECKING, Any, Generic

from anyio.lowlevel import checkpoint

from trio_multispool.clock import stopwatch
from trio_multispool.errors import SpoolError
from trio_multispool.model.results import Ok
from trio_multispool.model.types import D, M, Q
from trio_multispool.reader.dequeue import Dequeuer
from trio_multispool.storage.source import Claiming, Given, Look, NothingLeft
from trio_multispool.threads.loop import context_for_a_thread, keeping_notes_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.entries.claimer import Claimed
    from trio_multispool.errors import Trouble
    from trio_multispool.model.results import Result
    from trio_multispool.reader.dequeue import Begin
    from trio_multispool.reader.several import AnyDequeuer
    from trio_multispool.storage.source import Next


class Supply(abc.ABC, Generic[Q, M, D]):
    """The jobs of one iteration of a reader; an async context manager around the tasks that work on them."""

    def __init__(
        self, dequeuer: AnyDequeuer[Q, M, D], *, wait: bool, claims_next: bool = True, begin: Begin | None = None
    ) -> None:
        """Begin an iteration. One that does not wait gives no entry twice. `begin`: as for `Dequeuer.take`."""
        self.claims_next: bool = claims_next and dequeuer.claims_next
        """Whether each settlement is to check out the next entry, by what `then` returns."""
        self.failed: bool = False
        """Whether a job was not settled as its handler said."""
        self._dequeuer: AnyDequeuer[Q, M, D] = dequeuer
        self._wait = wait
        self._begin = begin
        self._given = None if wait else Given()
        self._mutex = threading.Lock()
        self._claimed: collections.deque[tuple[Claimed[M], float]] = collections.deque()
        self._ready: collections.deque[Checkout[Q, M, D]] = collections.deque()
        self._ended = False
        self._bug: BaseException | None = None
        self._claiming: Claiming[Any] | None = None
        if self._given is not None:
            dequeuer.begin_pass(self._given)

    async def __aenter__(self) -> Self:
        """Begin. No checkpoint."""
        self._dequeuer.close_at_the_end(self)
        return self

    async def __aexit__(self, exception_type: object, exception: BaseException | None, traceback: object) -> None:
        """Return what was checked out and not begun."""
        with keeping_notes_of(exception):
            await self.close()
        if exception is not None and self._bug is not None:  # no task has asked since and raised it
            exception.add_note(f"while fetching: {self._bug!r}")
            self._bug = None
        self._raise_bug()

    # For the tasks that ask

    async def next(self) -> Result[Checkout[Q, M, D] | None, Trouble]:
        """Return the next job. `Ok(None)`: the reader was stopped or, without waiting, nothing is there.

        Raises what a thread or task that checks out has raised and is no `SpoolError`, such as a codec's bug.

        **Cancellation**: cancelled means that nothing was taken.
        """
        over, running = self._ended or self._dequeuer.stopped, self._dequeuer.session.running
        if over:
            await checkpoint()
        elif self._claimed or self._ready or self._bug is not None:  # else it waits anyway
            await running.loop.checkpoint_if_cancelled()  # the settlement before was a checkpoint
            if self._bug is not None:
                self._raise_bug()
            if running.closed:  # what was checked out is let go at the end
                raise running.closed_error()
            if self._claimed:
                self._ready.extend(self._taken())
            over = self._ended or self._dequeuer.stopped
        if self._ready and not over:
            job = self._ready.popleft()
            if not self.claims_next:
                self.poke()
            return Ok(job)
        answer: Result[Checkout[Q, M, D] | None, Trouble] = Ok(None) if over else await self._ask()
        self._raise_bug()
        self._dequeuer.check_open()
        return answer

    @abc.abstractmethod
    def _ask(self) -> Awaitable[Result[Checkout[Q, M, D] | None, Trouble]]:
        """Wait for a job; nothing is ready."""

    @property
    def _of_one(self) -> Dequeuer[Q, M, D]:
        """What checks out of the one queue: of several, no settlement checks anything out."""
        assert isinstance(self._dequeuer, Dequeuer), "it claims next"  # noqa: S101  # a bug in this package
        return self._dequeuer

    def _raise_bug(self) -> None:
        bug, self._bug = self._bug, None
        if bug is not None:
            try:
                raise bug
            finally:
                del bug

    def _taken(self) -> list[Checkout[Q, M, D]]:
        with self._mutex:
            claimed = list(self._claimed)
            self._claimed.clear()
        hooks = self._dequeuer.session.hooks
        now = hooks.now() if hooks.listening else 0.0
        return [self._of_one.in_hand(one, now - took) for one, took in claimed]

    # The end

    def _is_over(self) -> bool:
        return self._ended or self._dequeuer.stopped

    def poke(self) -> None:
        """Look again for something to do: one that was kept ready was taken, or the reader was stopped."""

    def fail(self) -> None:
        """Give no more jobs: one has failed, and must not come round at once."""
        self.failed = True
        self.end()

    def end(self) -> None:
        """Give no more jobs, and check out no more."""
        with self._mutex:
            self._ended = True

    async def close(self) -> None:
        """End, and return what no task has begun, whatever is cancelled. Idempotent."""
        self.end()
        await self._dequeuer.give_back([*self._ready, *self._taken()])

    # For the settlements

    def then(self) -> Claiming[Any] | None:
        """Return what a store is to claim after a settlement; `None` if all is over or an ordinary look is due."""
        dequeuer = self._of_one
        if self._ended or dequeuer.stopped or dequeuer.look_is_due():
            return None
        if self._claiming is None:
            claimer = dequeuer.claimer
            self._claiming = Claiming(
                claimer.source,
                self._given,
                claimer,
                self._is_over,
                self._take,
                context_for_a_thread(),
                None if self._begin is None else functools.partial(self._begin.mark, dequeuer.queue.value),
            )
        return self._claiming

    def _take(self, look: Look, claim: Callable[[], Next[Any]]) -> None:
        elapsed, claimer = stopwatch(), self._of_one.claimer
        try:
            claimed = claimer.finish(claim(), look, None if self._begin is None else self._begin.begin)
        except SpoolError:
            return  # the next ordinary check-out meets it again
        except BaseException as error:  # noqa: BLE001  # raised in a task of the iteration: the settlement went well
            self._bug = error
            return
        if isinstance(claimed, NothingLeft) or not claimed:
            return
        with self._mutex:
            if not self._ended:
                took = elapsed()
                self._claimed.extend((one, took) for one in claimed)
                return
        claimer.take_back(claimed, look)
