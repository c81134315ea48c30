"""What waits for one queue, the first to be due first, as far as this process knows it.

Theory. All waiting entries are listed and read once. From then on the store tells the names of new ones, and only those
are read. Where the store cannot tell, all are read again after a while, which takes at most a thousandth of a CPU. What
is kept here is a hint, as a listing is: a check-out reads the entry's time again, under its lock, and puts it back here
if it is not due. So an entry that was saved anew, or that another process took, needs no bookkeeping.

Of very many, only the first to be due are kept. When those are used up, all are read again. That takes seconds, so it
is done a piece at a time, between which whoever looks can be cancelled.

Times are times of the wall clock, which may jump. Nothing here is kept as a duration from now.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from typing import TYPE_CHECKING, Final, final

import msgspec

from trio_multispool.clock import stopwatch
from trio_multispool.storage.directory.waiting import due_at as due_at_of
from trio_multispool.storage.directory.waiting import waiting as each_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.inotify import ArrivalsWatch

MOST_KEPT: Final = 100_000
"""Keep at most this many entries, the first to be due."""

LOOKING_SHARE: Final = 1000
"""Where the store does not tell what came in, all is read again after this many times as long as that takes..."""

LONGEST_PAUSE: Final = 10.0
"""... and at the latest after this time, in seconds."""

LONGEST_PIECE: Final = 0.01
"""All are read in pieces that take about this long, in seconds."""

PIECE: Final = 256
"""After this many entries the clock is read."""

LOOK_INTERVAL: Final = 0.02
"""A reader that finds work asks for new waiting entries at most this often, in seconds."""

UNREADABLE_INTERVAL: Final = 10.0
"""Try an entry that could not be read again after this time, in seconds."""


@final
class Due(msgspec.Struct, frozen=True):
    """An entry that is due and about to be checked out."""

    at: float
    """In seconds since 1970."""
    name: str


class WaitingEntries:
    """What waits for one queue, shared by the readers of one spool and used by any number of threads."""

    def __init__(self, layout: Layout, arrivals: ArrivalsWatch, queue: str, now: Callable[[], float]) -> None:
        """Begin with nothing known. `now` is the wall clock, in seconds since 1970."""
        self._layout = layout
        self._arrivals = arrivals
        self._queue = queue
        self._now = now
        self._mutex = threading.Lock()
        self.heap: list[tuple[float, str]] = []
        """What is known to wait, with outdated pairs among it; empty for most queues."""
        self._times: dict[str, float] = {}  # the true time of each name; the heap may have outdated pairs
        self._horizon = math.inf  # later ones are not kept
        self._busy: list[Due] = []
        self._in_question = 0  # taken, and nobody knows yet whether they can be checked out
        self._elapsed: Callable[[], float] | None = None  # since the last look
        self._since_all_looked_at: Callable[[], float] | None = None
        self._looking_took = 0.0
        self._reading: Iterator[tuple[float, str]] | None = None  # of all entries, where that is under way
        self._read: list[tuple[float, str]] = []
        self._pruned_from = math.inf  # some of what is due later was left out of that

    def look(self, *, wanted: bool) -> bool:
        """Learn what has come in; in a worker thread. Unless it is `wanted`, at most every `LOOK_INTERVAL`.

        `False`: there is more to read than can be done at a time. Look again, and until then nobody knows what waits.
        """
        with self._mutex:
            if not wanted and self._elapsed is not None and self._elapsed() < LOOK_INTERVAL:
                return True
            self._elapsed = stopwatch()
            busy, self._busy = self._busy, []
            for due in busy:
                self._push(due.at, due.name)
            try:
                self._learn()
            except BaseException:  # passed on: the store does not tell twice, so read all next time
                self._since_all_looked_at = self._reading = None
                raise
            return self._reading is None

    def rest(self) -> None:
        """Read no more, as nobody is waiting: what is being read is read again next time."""
        with self._mutex:
            if self._reading is not None:
                self._since_all_looked_at = self._reading = None

    def _learn(self) -> None:
        arrivals = self._arrivals.of(self._queue)
        if arrivals is None:
            if self._reading is not None:  # what was being read has gone
                self._since_all_looked_at, self._reading, self._read = None, None, []
            return
        is_used_up = not self._times and self._horizon < math.inf
        if arrivals.all or (self._reading is None and (is_used_up or self._is_time(told=arrivals.told))):
            self._since_all_looked_at, self._read = stopwatch(), []
            self.heap, self._times, self._horizon = [], {}, math.inf  # what comes from now on is told
            self._pruned_from = math.inf
            self._reading = each_waiting(self._layout, self._queue)
        if self._reading is not None:
            self._read_on(self._reading)
        for name in arrivals.names:
            due_at = due_at_of(self._layout, self._queue, name)
            if due_at is not None:
                self._push(due_at, name)

    def _is_time(self, *, told: bool) -> bool:
        """Tell whether it is time to read all again, where the store does not tell what came in."""
        since = self._since_all_looked_at
        return since is None or (not told and since() >= min(self._looking_took * LOOKING_SHARE, LONGEST_PAUSE))

    def _read_on(self, reading: Iterator[tuple[float, str]]) -> None:
        """Read a piece of all entries; after the last one, keep the first to be due."""
        elapsed = stopwatch()
        while len(piece := list(itertools.islice(reading, PIECE))) == PIECE:
            self._read += piece
            if len(self._read) > 2 * MOST_KEPT:
                self._read = heapq.nsmallest(MOST_KEPT + 1, self._read)
                self._pruned_from = self._read[-1][0]
            if elapsed() >= LONGEST_PIECE:
                return
        self._read += piece
        self._reading = None
        known = {name: at for at, name in self._read} | self._times  # what came meanwhile was read later
        self._read = []
        self._keep(known, min(self._pruned_from, self._horizon))
        if self._since_all_looked_at is not None:
            self._looking_took = self._since_all_looked_at()

    def _push(self, at: float, name: str) -> None:
        if self._times.get(name) == at or at > self._horizon:
            return
        self._times[name] = at
        heapq.heappush(self.heap, (at, name))
        if len(self.heap) > 2 * MOST_KEPT:
            self._keep(self._times, self._horizon)

    def _keep(self, known: dict[str, float], horizon: float) -> None:
        """Keep the first to be due of what is known, which is all that is due up to `horizon`."""
        kept = heapq.nsmallest(MOST_KEPT, ((at, name) for name, at in known.items()))  # sorted, and so a heap
        self._horizon = min(kept[-1][0], horizon) if len(kept) < len(known) else horizon
        kept = [pair for pair in kept if pair[0] <= self._horizon]
        self.heap, self._times = kept, {name: at for at, name in kept}

    def _first(self) -> Due | None:
        """Return what is due first; under the mutex."""
        while self.heap:
            at, name = self.heap[0]
            if self._times.get(name) == at:
                return Due(at, name)
            _ = heapq.heappop(self.heap)
        return None

    def take(self) -> Due | None:
        """Take the first entry if it is due; call `decide` when it is known what became of it."""
        with self._mutex:
            first = self._first()
            if first is None or first.at > self._now():
                return None
            del self._times[first.name]
            _ = heapq.heappop(self.heap)
            self._in_question += 1
            return first

    def decide(self) -> None:
        """Say that it is known what became of an entry that was taken."""
        with self._mutex:
            self._in_question -= 1

    def put_back(self, due: Due) -> None:
        """Keep an entry that was taken and not checked out."""
        with self._mutex:
            self._push(due.at, due.name)

    def put_aside(self, due: Due) -> None:
        """Keep an entry that cannot be had just now until the next look."""
        with self._mutex:
            self._busy.append(due)

    def try_later(self, due: Due) -> None:
        """Keep an entry that cannot be read, to be tried again after a while."""
        self.put_back(Due(self._now() + UNREADABLE_INTERVAL, due.name))

    @property
    def busy(self) -> bool:
        """Whether a due entry was locked, or a thread is finding out: that may end with a cancellation."""
        return bool(self._busy or self._in_question)

    def next_at(self) -> float | None:
        """Return when the next entry is due, in seconds since 1970; `None` if none waits.

        When all that was kept is used up, the others are due after that: then it is time to look.
        """
        with self._mutex:
            first = self._first()
            if first is None:
                return None if self._horizon == math.inf else self._horizon
            return first.at
