"""Checks out the next entry of an iteration, in the thread hop that settles the one before.

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

import collections
import threading
from typing import TYPE_CHECKING, Generic, final

from trio_multispool.clock import stopwatch
from trio_multispool.errors import SpoolError
from trio_multispool.model.types import D, M, Q

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.entries.claimer import Claimed
    from trio_multispool.reader.dequeue import Dequeuer
    from trio_multispool.storage.source import Given


@final
class NextJobs(Generic[Q, M, D]):
    """The entries that the settlements of one iteration have checked out, until its tasks take them."""

    def __init__(self, dequeuer: Dequeuer[Q, M, D], given: Given | None) -> None:
        """Begin with nothing; names `given` in this pass are passed over."""
        self._dequeuer = dequeuer
        self._given = given
        self._mutex = threading.Lock()
        self._claimed: collections.deque[tuple[Claimed[M], float]] = collections.deque()
        self._ended = False
        self._bug: BaseException | None = None
        dequeuer.close_at_the_end(self)

    def __bool__(self) -> bool:
        """Tell whether there is anything to take."""
        return bool(self._claimed) or self._bug is not None

    def prepare(self) -> Callable[[], None] | None:
        """Return what a settlement calls in its thread at the end; `None` if all is over or an ordinary look is due."""
        return None if self._over or self._dequeuer.recovery_is_due else self._claim_next

    @property
    def _over(self) -> bool:
        return self._ended or self._dequeuer.stopped

    def _claim_next(self) -> None:
        if self._over:
            return
        elapsed = stopwatch()
        try:
            claimed = self._dequeuer.claim_listed(self._given)
        except SpoolError:
            return  # the next ordinary check-out meets it again
        except BaseException as error:  # noqa: BLE001  # raised in a task of the iteration: the settlement went well
            self._bug = error
            return
        if claimed is None:
            return
        with self._mutex:
            if not self._ended:
                self._claimed.append((claimed, elapsed()))
                return
        self._dequeuer.take_back(claimed, self._given)

    def take(self) -> list[Checkout[Q, M, D]]:
        """Return what was checked out since the last call; in the event loop.

        Raises an exception of the thread that is no `SpoolError`, such as a codec's bug. Raises
        `anyio.ClosedResourceError` if the spool was closed meanwhile; what was checked out is let go at the end.
        """
        self._dequeuer.check_spool_open()
        if self._bug is not None:
            bug, self._bug = self._bug, None
            try:
                raise bug
            finally:
                del bug
        return self._jobs()

    def _jobs(self) -> list[Checkout[Q, M, D]]:
        with self._mutex:
            claimed = list(self._claimed)
            self._claimed.clear()
        return [self._dequeuer.in_hand(one, self._dequeuer.now() - took) for one, took in claimed]

    def end(self) -> None:
        """Check out no more."""
        with self._mutex:
            self._ended = True

    async def close(self) -> None:
        """Check out no more, and return what no task has taken, whatever is cancelled. Idempotent."""
        self.end()
        await self._dequeuer.give_back(self._jobs())
