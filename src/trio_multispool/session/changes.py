"""Wait for a queue to change, or for an entry to move: the store tells where it can, and everywhere one looks again.

Theory. Looking again is the base: a reader lists, works the listing off, and lists again. Being told only makes it look
earlier, so a lost hint loses nothing. Two changes must not be missed, or an entry would wait for the next look:

- A change between the listing and the wait. The queue is watched *before* it is listed. A change that nobody has
  fetched makes the descriptor readable, so the wait ends at once.
- A change that another reader fetched before this one began to wait. Each queue has a count of changes. A reader notes
  the count before it lists, and does not wait if the count has grown since.

One watch serves all readers of a spool and belongs to none. Only one task may wait for a descriptor: the waiting reader
that holds the baton. It tells the others what it fetched, and passes the baton on when it stops waiting. The watch is
opened for the first reader that has to wait, and closed when the last has gone.

One change wakes one reader, and not all. A reader that was woken owes a look, and hands the wake on if it does not take
what came: it was stopped or cancelled, it met trouble, or it passes over what others would take. So no entry lies there
while a reader waits that would take it.

A look costs a listing, and a directory that once was long stays slow to list. So an idle reader's waits double up to
its poll interval, and grow with the time that a listing takes. Where the store tells of changes, looking again is only
for what no change announces: dropping a lock moves no file.
"""

from __future__ import annotations

import collections
import math
import threading
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from trio_multispool.errors import SpoolError
from trio_multispool.events import LOGGER, Event, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.storage.handles import Watch

FIRST_WAIT: Final = 0.005
"""The first wait after something was there, in seconds."""

FIRST_BUSY_WAIT: Final = 0.0005
"""The first wait for a lock, in seconds: a producer drops it a few system calls after the rename that woke a reader."""

BUSY_LISTING_SHARE: Final = 10
"""A wait for a lock is at least this many times as long as a listing; it doubles, so it soon is longer."""

LISTING_SHARE: Final = 1000
"""A wait is at least this many times as long as a listing: polling costs at most a thousandth of a CPU."""

LONGEST_WAIT: Final = 10.0
"""A slow listing stretches a wait at most to this, in seconds: latency matters more than the last per mille."""

LISTINGS_REMEMBERED: Final = 3
"""The quickest of this many listings counts: one may be slow only because the machine was busy."""


class Polling:
    """The waits of one idle reader."""

    def __init__(self, interval: float) -> None:
        """Wait at most `interval` seconds at a time, longer only where listing is slow."""
        self._interval = interval
        self._next = min(FIRST_WAIT, interval)
        self._next_busy = min(FIRST_BUSY_WAIT, interval)
        self._listings: collections.deque[float] = collections.deque(maxlen=LISTINGS_REMEMBERED)

    def next_wait(self, listing_took: float, *, told: bool = False, held: bool = True, busy: bool = False) -> float:
        """Return how long to wait now, after a listing that took `listing_took`, both in seconds; waits grow.

        If the store tells of changes (`told`), short waits are not needed. If nothing is checked out of the queue
        (`held` is false) either, nothing comes without a change, and looking again is for lost hints only. But
        dropping a lock moves no file: where an entry was locked (`busy`), waits are short and grow.
        """
        self._listings.append(listing_took)
        stretched = min(min(self._listings) * LISTING_SHARE, LONGEST_WAIT)
        if busy:
            wait = self._next_busy
            self._next_busy = min(self._next_busy * 2, self._interval)
            return max(wait, min(self._listings) * BUSY_LISTING_SHARE)
        if told:
            return max(self._interval, stretched if held else LONGEST_WAIT)
        wait = max(self._next, stretched)
        self._next = min(self._next * 2, self._interval)
        return wait


class Polled:
    """Logs, once a spool, that its changes are looked for by polling."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._told = False

    def tell(self, error: SpoolError) -> None:
        """Say why, unless something was said before."""
        if not self._told:
            self._told = True
            message = "changes of spool %(spool)s are looked for by polling: %(error)s"
            log(LOGGER.warning, Event.POLLING, self._path, message, error=error)


class _Waiter:
    """One task that waits; `scope` is cancelled to wake it, `baton` to make it look whether the baton is free."""

    def __init__(self, seen: int, deadline: float) -> None:
        self.seen = seen
        self.woken = False
        self.scope = anyio.CancelScope(deadline=deadline)
        self.baton = anyio.CancelScope()

    def wake(self) -> None:
        self.woken = True
        self.scope.cancel()


class Changes:
    """Where the readers of one spool wait for its queues to change; used in its event loop, but for `watch`.

    A second one is for tasks that wait for entries to move, by their names.
    """

    def __init__(self, begin: Callable[[], Watch | None], polled: Polled) -> None:
        """Begin with nobody waiting and nothing watched; `begin` begins to watch, in a worker thread."""
        self._begin = begin
        self._polled = polled
        self._opening = threading.Lock()
        self._watch: Watch | None = None
        self._watchable = True
        self._told: set[str] = set()
        self._joined: collections.Counter[str] = collections.Counter()
        self._changes: collections.Counter[str] = collections.Counter()
        self._waiters: dict[_Waiter, None] = {}
        self._waiting_for: collections.defaultdict[str, dict[_Waiter, None]] = collections.defaultdict(dict)
        self._holder: _Waiter | None = None

    def told(self, queue: str) -> bool:
        """Whether the store tells of changes of a queue."""
        return queue in self._told

    def join(self, what: str) -> None:
        """Count one that may come to wait for a queue, or for an entry."""
        self._joined[what] += 1

    def leave(self, what: str) -> None:
        """Count one that has gone and has nothing under way; with the last of all, close the watch."""
        self._joined[what] -= 1
        if not self._joined[what]:
            del self._joined[what], self._changes[what]
            _ = self._waiting_for.pop(what, None)
        self._close_if_unused()

    def watch(self, queue: str) -> None:
        """Watch a queue, if the store can; in a worker thread for one that has joined, before it looks."""
        with self._opening:
            if not self._watchable:
                return
            try:
                if self._watch is None:
                    self._watch = self._begin()
                    self._watchable = self._watch is not None
                if self._watch is not None:
                    self._watch.add(queue)
                    self._told.add(queue)
            except SpoolError as error:
                self._told.discard(queue)
                self._polled.tell(error)

    def seen(self, what: str) -> int:
        """Return the count of changes, to be taken before the queue is listed, and given to `wait`."""
        return self._changes[what]

    def tell(self, what: str, entries: float = math.inf) -> None:
        """Say that a queue may have new entries: as many of those that wait are woken, the first ones first.

        Or that an entry may have moved; or, if it is `""`, that anything may have changed.
        """
        for each in [what] if what else list(self._joined):
            if each in self._joined:
                self._changes[each] += 1
                self._wake(each, entries)

    def _wake(self, what: str, entries: float) -> None:
        for waiter in self._waiting_for[what]:
            if entries <= 0:
                break
            if not waiter.woken:
                waiter.wake()
                entries -= 1

    def hand_on(self, what: str, *, to_any: bool = True) -> None:
        """Wake another task in the place of one that was woken; unless `to_any`, only one that has not looked since."""
        for waiter in self._waiting_for[what]:
            if not waiter.woken and (to_any or waiter.seen < self._changes[what]):
                waiter.wake()
                break

    async def wait(self, what: str, seen: int, timeout: float) -> None:  # noqa: ASYNC109  # the wait itself
        """Wait until the queue may have changed since `seen`, or `timeout` seconds have passed; after `join`.

        The caller owes a look then; see `hand_on`. If this is cancelled, it owes nothing.
        """
        waiter = _Waiter(seen, anyio.current_time() + timeout)
        self._waiters[waiter] = self._waiting_for[what][waiter] = None
        try:
            with waiter.scope:
                if self._changes[what] != seen:
                    return
                while not waiter.woken:
                    waiter.baton = anyio.CancelScope()
                    with waiter.baton:
                        await self._wait_for_baton(waiter)
            await checkpoint_if_cancelled()  # woken, or over; or cancelled from outside as well
        except BaseException:  # a cancellation, which is passed on
            if waiter.woken:
                self.hand_on(what)
            raise
        finally:
            del self._waiters[waiter], self._waiting_for[what][waiter]
            self._pass_on(waiter)

    async def _wait_for_baton(self, waiter: _Waiter) -> None:
        watch = self._watch
        if watch is None or self._holder is not None:
            await anyio.sleep(math.inf)
            return
        self._holder = waiter
        try:
            await anyio.wait_readable(watch.fileno())
        finally:
            self._holder = None
        for what, entries in watch.drain().items():
            self.tell(what, entries)

    def _pass_on(self, leaving: _Waiter) -> None:
        """Let another waiter take the baton, if it is free."""
        if self._holder is leaving:
            self._holder = None
        if self._holder is None:
            for other in self._waiters:
                other.baton.cancel()
                break
        self._close_if_unused()

    def wake_all(self) -> None:
        """End all waits: the spool is closed."""
        for waiter in self._waiters:
            waiter.scope.cancel()

    def _close_if_unused(self) -> None:
        if self._joined or self._waiters:
            return
        # No lock is needed: without readers no thread uses it; taking it here could wait for the disk.
        watch, self._watch = self._watch, None
        self._told.clear()
        if watch is not None:
            watch.close()
