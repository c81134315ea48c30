"""The names of one queue that are still to be tried: one listing for all readers of an open spool.

Theory. A listing is a hint: only the rename decides who gets an entry. Names are tried in the order of the listing,
which is by name. When all were tried, the queue is listed again; `LISTINGS_OF_WORK` says when it is listed earlier, for
names that need not sort by time. Entries that other processes took meanwhile are passed over. A process that keeps
missing skips some names, so that several processes do not all try the same ones.

All readers take from the same listing, so no two of them try the same name, and it is kept once. What one reader passes
over, because it has given that entry in its pass or the entry's key is full, stays for the others: it is put by. Each
reader goes through what was put by at its own position, so a name is looked at once by each reader that passes it over.

A look ends when all names of a listing that was begun after it were tried, whoever made that listing.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import threading
from typing import TYPE_CHECKING, Final

import msgspec

from trio_multispool.clock import random_below, stopwatch
from trio_multispool.errors import StorageFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

GONE_FROM_A_STALE_LISTING: Final = 16
"""The queue may be listed again once this many listed entries were found gone..."""

NAMES_PER_GONE: Final = 32
"""... and at most this many names are left for each of them. Listing a name takes about a thirtieth of a miss."""

LISTINGS_OF_WORK: Final = 20
"""Where names need not sort by time, a queue is listed again after this many times as long as listing takes. An entry
that sorts before all listed ones waits no longer than that, and listing takes a twentieth of the time."""

MISSES_IN_ORDER: Final = 2
"""The first misses skip nothing: this many."""

A_CLAIM_MAKES_UP_FOR: Final = 0.25
"""How much of a miss is forgotten with each claim. Consumers that go on meeting each other stay apart: of 16 processes
that empty a queue, each misses a quarter of a name for each entry, and two if one claim makes up for all misses."""

MOST_DOUBLINGS: Final = 10
"""The range doubles at most this often: no skip is longer than about a thousand names."""


class Position(msgspec.Struct, eq=False):
    """How far one reader has come with what was put by."""

    listing: int = 0
    """Of which listing."""
    at: int = 0


class Window:
    """What is left of the last listing of a queue; used by any number of readers and threads."""

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        """Begin with no names; `names` lists the queue."""
        self.listings: int = 0
        """How many listings were begun."""
        self.listed: int = 0
        """Which of them was the last that could be made."""
        self.sources: int = 0
        """How many readers use it."""
        self._list = names
        self._mutex = threading.Lock()
        self._names: collections.deque[str] = collections.deque()
        self._put_by: list[str | None] = []  # by readers that passed them over; `None` when another has taken it
        self._misses = 0.0  # that no claim has made up for
        self._gone = 0  # listed entries that others took
        self._in_question: set[str] = set()  # taken from the names; whether they can be had is not known yet
        self._busy: set[str] = set()
        self._listing_took = 0.0
        self._since_listed = stopwatch()
        self._claimed_of_it = False

    def next(self, position: Position, passes_over: Callable[[str], bool] | None, *, waits: bool) -> str | None:
        """Take the next name that the reader does not pass over; call `decide` when it is known what became of it."""
        with self._mutex:
            if self._gone >= GONE_FROM_A_STALE_LISTING and len(self._names) <= self._gone * NAMES_PER_GONE:
                # Others took much of the listing: listing again is quicker than missing the rest. Otherwise each of
                # many consumers would try every name, and get only a few entries.
                self._list_now(waits=waits)
            if position.listing != self.listings:
                position.listing, position.at = self.listings, 0
            name = self._next_put_by(position, passes_over) if position.at < len(self._put_by) else None
            while name is None and self._names:
                name = self._names.popleft()
                if passes_over is not None and passes_over(name):
                    self._put_by.append(name)
                    position.at, name = len(self._put_by), None
            if name is not None:
                self._in_question.add(name)
            return name

    def _next_put_by(self, position: Position, passes_over: Callable[[str], bool] | None) -> str | None:
        while position.at < len(self._put_by):
            name = self._put_by[position.at]
            position.at += 1
            if name is not None and (passes_over is None or not passes_over(name)):
                self._put_by[position.at - 1] = None
                return name
        return None

    def decide(
        self, name: str, *, claimed: bool = False, gone: bool = False, busy: bool = False, again: bool = False
    ) -> None:
        """Say what became of a name that was taken. If it is to be tried `again`, it comes first."""
        with self._mutex:
            self._in_question.discard(name)
            if claimed:
                self._misses = max(self._misses - A_CLAIM_MAKES_UP_FOR, 0.0)
                self._claimed_of_it = True
            if busy:
                self._busy.add(name)
            elif self._busy:
                self._busy.discard(name)
            if again:
                self._names.appendleft(name)
            elif gone or busy:
                self._gone += gone
                self._make_way()

    def leave(self, name: str, position: Position) -> None:
        """Leave a name that was taken and refused to other readers."""
        with self._mutex:
            self._in_question.discard(name)
            self._put_by.append(name)
            if position.listing == self.listings and position.at == len(self._put_by) - 1:
                position.at += 1

    def put_back(self, name: str) -> None:
        """Put a name first: its entry was released by somebody who never had it."""
        with self._mutex:
            self._names.appendleft(name)

    def _make_way(self) -> None:
        """Skip some names, because other processes are trying the same ones; skipped names come last.

        How many is drawn from a range that doubles with each miss, as in exponential backoff, and shrinks slowly while
        there are none: many processes are soon far apart, and stay so. The first misses skip nothing, so that a reader
        which is alone keeps the order even if somebody takes an entry away by hand.
        """
        self._misses = min(self._misses + 1, MISSES_IN_ORDER + MOST_DOUBLINGS)
        doublings = int(self._misses) - MISSES_IN_ORDER
        if doublings > 0:
            self._names.rotate(-random_below(min(2**doublings, len(self._names) + 1)))

    def listed_since(self, listings: int, *, waits: bool) -> float | None:
        """Have the queue listed, unless that was begun after the first `listings`; return how long it took, in seconds.

        `None`: names were put back meanwhile, and come first. With `waits`, a queue that is missing is an empty one.
        """
        with self._mutex:
            if self.listed <= listings:
                if self._names:
                    return None
                self._list_now(waits=waits)
                self._busy.intersection_update(self._names)
            return self._listing_took

    def list_for_earlier(self, *, waits: bool) -> None:
        """List the queue again if it is time to, as new entries may sort before the listed ones.

        Not before the last listing gave an entry: a queue from which nothing can be had is not listed over and over.
        """
        with self._mutex:
            if self._names and self._claimed_of_it and self._since_listed() >= LISTINGS_OF_WORK * self._listing_took:
                self._list_now(waits=waits)

    def _list_now(self, *, waits: bool) -> None:
        elapsed = stopwatch()
        self.listings += 1
        with no_directory_is_empty(wait=waits):
            listed = self._list()
            if self._in_question:  # whoever tries them says what becomes of them
                listed = [name for name in listed if name not in self._in_question]
            self._names = collections.deque(listed)
        self.listed = self.listings
        self._put_by.clear()
        self._listing_took, self._since_listed = elapsed(), stopwatch()
        self._gone = 0
        self._claimed_of_it = False

    def names(self) -> list[str]:
        """Return the names that are left."""
        with self._mutex:
            return [*(name for name in self._put_by if name is not None), *self._names]

    def is_any_in_question(self) -> bool:
        """Tell whether any thread is trying a name."""
        return bool(self._in_question)

    def is_any_left(self) -> bool:
        """Tell whether any thread found an entry locked, or is still trying one: dropping a lock causes no event."""
        with self._mutex:
            return bool(self._busy or self._in_question or self._names)


@contextlib.contextmanager
def no_directory_is_empty(*, wait: bool) -> Generator[None]:
    """Treat a missing directory as an empty one, for a reader that waits."""
    try:
        yield
    except StorageFailure as error:
        if not wait or error.errno != errno.ENOENT:
            raise
