"""Where readers of a directory find their next entries: the names of a listing, and what waited and is due.

A listing is a hint: only the rename decides who gets an entry. Names are tried in the order of the listing, which is by
name. When all were tried, the queue is listed again; `LISTINGS_OF_WORK` says when it is listed earlier, for names that
need not sort by time. Entries that others took meanwhile are passed over. A reader that keeps missing skips some names,
so that several readers do not all try the same ones.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import math
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from trio_multispool.clock import random_below, stopwatch
from trio_multispool.errors import EntryNotFound, SpoolError, StorageFailure, UnreadableEntry
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory.disk.layout import directory_of
from trio_multispool.storage.directory.schedule import Due
from trio_multispool.storage.protocol import Storage
from trio_multispool.storage.requests import NotDue
from trio_multispool.storage.singly import release_or_let_go
from trio_multispool.storage.source import Next, NothingLeft

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trio_multispool.storage.directory.claims import DirectoryClaim
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.schedule import WaitingEntries
    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.source import A, Gate, Given, Look


TRIES_AT_A_TIME: Final = 100
"""After this many tries, a failed one ends the hop. A hop cannot be cancelled; between two hops, the task can be."""

GONE_FROM_A_STALE_LISTING: Final = 16
"""The queue may be listed again once this many listed entries were found gone..."""

NAMES_PER_GONE: Final = 32
"""... and at most this many names are left for each of them. Listing a name takes about a thirtieth of a miss."""

LISTINGS_OF_WORK: Final = 20
"""Where names need not sort by time, a queue is listed again after this many times as long as listing takes. An entry
that sorts before all listed ones waits no longer than that, and listing takes a twentieth of the time."""

MISSES_IN_ORDER: Final = 2
"""The first misses in a row skip nothing: this many."""

MOST_DOUBLINGS: Final = 10
"""The range doubles at most this often: no skip is longer than about a thousand names."""


class _Store(Storage[Any, Any], Protocol):
    """The store, as a source uses it."""

    def claim_listed(
        self, place: Place, name: str, *, due_by: float = math.inf, before_commit: Callable[[], None]
    ) -> DirectoryClaim | Unavailable | NotDue:
        """Do as `claim` does, without looking whether the spool is where it was."""
        ...

    def read_listed(self, place: Place, name: str) -> bytes:
        """Do as `read_metadata` does, likewise."""
        ...


class _Call(NamedTuple):
    """What one call of `claim` is given for each of its tries."""

    gate: Gate[Any]
    given: Given | None
    before_commit: Callable[[], None]
    unreadable: list[UnreadableEntry]


class DirectorySource:
    """The names of one queue that are still to be tried, for one reader; any number of threads take from them."""

    def __init__(  # noqa: PLR0913  # made by the store alone
        self,
        storage: _Store,
        layout: Layout,
        queue: str,
        *,
        waiting: WaitingEntries,
        now: Callable[[], float],
        closed: Callable[[], None],
        sorts_last: bool,
    ) -> None:
        """Begin with no names: the first look lists the queue. `sorts_last`: new names sort after all older ones."""
        self._storage = storage
        self._layout = layout
        self._queue = queue
        self._place = Place(queue, State.AVAILABLE)
        self._waiting_place = Place(queue, State.WAITING)
        self._checkout_place = Place(queue, State.CHECKED_OUT)
        self._waiting = waiting
        self._now = now
        self._closed: Callable[[], None] | None = closed
        self._sorts_last = sorts_last
        self._mutex = threading.Lock()
        self._names: collections.deque[str] = collections.deque()
        self._refused = False  # an entry of this listing was refused
        self._misses = 0  # in a row
        self._gone = 0  # listed entries that others took
        self._in_question: set[str] = set()  # taken from the names; whether they can be had is not known yet
        self._busy: set[str] = set()
        self._listing_took = 0.0
        self._since_listed = stopwatch()
        self._claimed_of_it = False

    def close(self) -> None:
        """Forget the names."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()

    def claim(  # noqa: PLR0913  # the protocol's parameters
        self,
        look: Look,
        most: Callable[[], int],
        *,
        gate: Gate[A],
        stopped: Callable[[], bool],
        before_commit: Callable[[], None],
        before_listing: Callable[[], None] = lambda: None,
        listed_only: bool = False,
    ) -> Next[A]:
        """Claim the first entries that can be had.

        Entries that waited and are due come before all listed ones. Otherwise they would never come while there is more
        work than can be done.
        """
        found: Next[A] = Next()
        call, tries = _Call(gate, look.given, before_commit, found.unreadable), 0
        try:
            self._begin(look, gate, listed_only=listed_only)
            while not stopped() and (not found.claims or len(found.claims) < most()):
                next_one = self._waiting.take() or self._next_name(look, gate)
                if next_one is not None:
                    tried = self._try(next_one, call)
                    tries += 1
                    if tried is not None:
                        found.claims.append(tried)
                    elif tries >= TRIES_AT_A_TIME:
                        break
                elif found.claims or listed_only:
                    break
                elif look.listing_took is None:
                    before_listing()
                    self._waiting.look(wanted=True)
                    look.listing_took = self._list(look, gate)
                else:
                    return Next([], found.unreadable, self._nothing_left(look, look.listing_took))
        except SpoolError:
            if not found.claims:
                raise
        except BaseException:  # of any kind: nobody will get these entries
            self.take_back(found.claims, look, gate)
            raise
        return found

    def _begin(self, look: Look, gate: Gate[Any], *, listed_only: bool) -> None:
        if not listed_only:  # else the store has looked, for all that it settled
            self._layout.check_named()
            self._layout.follow(directory_of(self._checkout_place))
        self._waiting.look(wanted=False)
        self._look_for_earlier(look, gate)

    def _nothing_left(self, look: Look, listing_took: float) -> NothingLeft:
        return NothingLeft(
            listing_took,
            self._is_any_held(look),
            self._is_any_left() or self._waiting.busy,
            next_due=self._waiting.next_at(),
        )

    def take_back(self, claims: list[tuple[Claim, Any]], look: Look, gate: Gate[Any]) -> None:
        """Release entries that nobody will get, as if they had never been claimed."""
        for claim, admission in reversed(claims):
            if look.given is not None:
                look.given.discard(claim.name)
            release_or_let_go(self._storage, claim)
            gate.leave(admission)
            if claim.due_at is not None:
                self._waiting.put_back(Due(claim.due_at, claim.name))
                continue
            with self._mutex:
                self._names.appendleft(claim.name)

    def _next_name(self, look: Look, gate: Gate[Any]) -> str | None:
        with self._mutex:
            if self._is_stale():
                self._list_now(look, gate)
            while self._names:
                name = self._names.popleft()
                if gate.is_full(name):
                    self._refused = True
                    continue
                self._in_question.add(name)
                return name
            return None

    def _is_stale(self) -> bool:
        """Tell whether listing again is quicker than missing the rest, because others took much of the listing.

        Otherwise each of many consumers would try every name, and get only a few entries.
        """
        return self._gone >= GONE_FROM_A_STALE_LISTING and len(self._names) <= self._gone * NAMES_PER_GONE

    def _list(self, look: Look, gate: Gate[Any]) -> float | None:
        """List the queue and return how long it took, in seconds; `None` if another thread has listed it meanwhile."""
        with self._mutex:
            if self._names:
                return None
            self._list_now(look, gate)
            self._busy.intersection_update(self._names)
            return self._listing_took

    def _look_for_earlier(self, look: Look, gate: Gate[Any]) -> None:
        """List the queue again if it is time to, and if new entries may sort before the listed ones.

        Not in a pass: each time it would go again over all that it has given. And not before the last listing gave an
        entry: a queue from which nothing can be had is not listed over and over.
        """
        if self._sorts_last or look.given is not None:
            return
        with self._mutex:
            if self._names and self._claimed_of_it and self._since_listed() >= LISTINGS_OF_WORK * self._listing_took:
                self._list_now(look, gate)

    def _list_now(self, look: Look, gate: Gate[Any]) -> None:
        """List the queue; the caller holds the mutex."""
        elapsed = stopwatch()
        with _no_directory_is_empty(wait=look.waits):
            self._names = collections.deque(self._storage.names(self._queue))
        gate.listed(self._names)
        self._refused = False
        self._listing_took, self._since_listed = elapsed(), stopwatch()
        self._gone = 0
        self._claimed_of_it = False

    def _is_any_held(self, look: Look) -> bool:
        with _no_directory_is_empty(wait=look.waits):
            return bool(self._layout.entry_names(directory_of(self._checkout_place)))
        return True

    def _is_any_left(self) -> bool:
        """Tell whether any thread found an entry locked, or is still trying one: dropping a lock causes no event."""
        with self._mutex:
            return bool(self._busy or self._in_question or self._names or self._refused)

    def _try(self, one: Due | str, call: _Call) -> tuple[Claim, Any] | None:
        return self._try_due(one, call) if isinstance(one, Due) else self._try_listed(one, call)

    def _try_due(self, due: Due, call: _Call) -> tuple[Claim, Any] | None:
        """Claim an entry that waited; `None` if it cannot be had."""
        waiting = self._waiting
        try:
            if call.gate.ignores(due.name):
                return None
            if call.given is not None and due.name in call.given:
                waiting.put_aside(due)
                return None
            made = self._claim(self._waiting_place, due.name, call, self._now())
            if isinstance(made, tuple):
                return made
            if isinstance(made, NotDue):  # it has been saved anew, or the clock went back
                waiting.put_back(Due(made.due_at, due.name))
            elif isinstance(made, UnreadableEntry):
                waiting.try_later(due)
            elif made is not Unavailable.GONE:  # busy, refused, or given by another thread since the look-up above
                waiting.put_aside(due)
        except BaseException:  # nobody has it: it is tried again first
            waiting.put_back(due)
            raise
        finally:
            waiting.decide()
        return None

    def _try_listed(self, name: str, call: _Call) -> tuple[Claim, Any] | None:
        """Claim a listed entry; `None` if it cannot be had."""
        busy = again = False
        try:
            if call.gate.ignores(name) or (call.given is not None and name in call.given):
                return None
            made = self._claim(self._place, name, call)
            if isinstance(made, tuple):
                self._misses = 0
                self._claimed_of_it = True
                return made
            if isinstance(made, Unavailable):
                busy = made is Unavailable.BUSY
                self._make_way(made)
            elif made is None:
                self._refused = True
        except BaseException:  # nobody has it: it is tried again first
            again = True
            raise
        finally:
            with self._mutex:
                self._in_question.discard(name)
                (self._busy.add if busy else self._busy.discard)(name)
                if again:
                    self._names.appendleft(name)
        return None

    def _claim(
        self, place: Place, name: str, call: _Call, due_by: float = math.inf
    ) -> tuple[DirectoryClaim, Any] | Unavailable | NotDue | UnreadableEntry | None:
        """Claim an entry that is admitted. `None`: it is refused, or another thread has given it meanwhile."""
        try:
            admission = call.gate.admit(name, lambda: self._storage.read_listed(place, name))
        except EntryNotFound:
            return Unavailable.GONE
        if admission is None:
            return None
        kept = False
        try:
            claimed = self._storage.claim_listed(place, name, due_by=due_by, before_commit=call.before_commit)
            if isinstance(claimed, (Unavailable, NotDue)):
                return claimed
            if call.given is not None and not call.given.add(name):
                release_or_let_go(self._storage, claimed)
                return None
            kept = True
            return claimed, admission
        except UnreadableEntry as error:
            call.unreadable.append(error)
            return error
        finally:
            if not kept:
                call.gate.leave(admission)

    def _make_way(self, claim: Unavailable) -> None:
        """Skip some names, because other readers are trying the same ones; skipped names come last.

        How many is drawn from a range that doubles with each miss in a row, as in exponential backoff: many readers are
        soon far apart. The first misses skip nothing, so that a reader which is alone keeps the order even if somebody
        takes an entry away by hand.
        """
        with self._mutex:
            self._misses += 1
            self._gone += claim is Unavailable.GONE
            doublings = min(self._misses - MISSES_IN_ORDER, MOST_DOUBLINGS)
            if doublings > 0:
                self._names.rotate(-random_below(min(2**doublings, len(self._names) + 1)))


@contextlib.contextmanager
def _no_directory_is_empty(*, wait: bool) -> Generator[None]:
    """Treat a missing directory as an empty one, for a reader that waits."""
    try:
        yield
    except StorageFailure as error:
        if not wait or error.errno != errno.ENOENT:
            raise
