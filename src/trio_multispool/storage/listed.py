"""`ListedSource`: what is due, and then the names of a list, one by one, for a store that can tell both.

The list is made anew when it is used up. Where new names need not sort last, what has arrived is put in its place in
the list, and the list is also made anew after as many claims as it had names. An entry that was released is in the next
list, so that it waits its turn.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final

from trio_multispool.clock import stopwatch
from trio_multispool.errors import EntryNotFound, SpoolError, UnreadableEntry
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.requests import NotDue
from trio_multispool.storage.singly import release_or_let_go
from trio_multispool.storage.source import Next, NothingLeft

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

    from trio_multispool.model.attempts import Mark
    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.source import A, Gate, Given, Look

TRIES_AT_A_TIME: Final = 100
"""After this many tries in vain, a call ends, so that its caller can be cancelled."""

FEWEST_CLAIMS: Final = 100
"""No list is made anew after fewer claims than this while it has names."""


class Shelf(Protocol):
    """What is in one queue of a store, as its readers ask for it."""

    def look(self) -> None:
        """Begin to answer a call: what it is told later is no older than this."""
        ...

    def now(self) -> float:
        """Return the time of day, in seconds since 1970."""
        ...

    def names(self) -> list[str]:
        """Return the names of what is available, sorted."""
        ...

    def due(self, tried: Collection[str]) -> list[tuple[float, str]]:
        """Return when what waits is due, and its name, in that order; maybe only the first that were not tried."""
        ...

    def was_tried(self, name: str) -> None:
        """Take note that an entry that waits was tried in this call, and may have moved."""
        ...

    def is_any_held(self) -> bool:
        """Tell whether anything is checked out of the queue."""
        ...

    def arrived(self, since: int, before: str) -> tuple[int, set[str]]:
        """Return a number, and what came in since that number was returned, by names that sort before one. A hint.

        It may return other names too.
        """
        ...


@dataclasses.dataclass
class _Due:
    """What one look knows of what is due, and of what it cannot read."""

    tried: set[str] = dataclasses.field(default_factory=set)  # and cannot be had
    busy: bool = False
    unreadable: bool = False


class _Call(NamedTuple):
    """What one call of `claim` is given for each of its tries."""

    gate: Gate[Any]
    given: Given | None
    before_commit: Callable[[], None]
    unreadable: list[UnreadableEntry]
    due: _Due

    def is_given(self, name: str) -> bool:
        """Tell whether an entry was given before in this pass."""
        return self.given is not None and name in self.given.names


@final
@dataclasses.dataclass(eq=False, repr=False)
class ListedSource:
    """The entries of one queue, for one reader; any number of threads take from it."""

    _storage: Storage[Any, Any]
    _shelf: Shelf
    _queue: str
    _sorts_last: bool
    _names: collections.deque[str] = dataclasses.field(default_factory=collections.deque)
    _claims_left: int = 0  # until it is time to make the list anew
    _arrivals: int = 0  # before the list was made, or added to
    _in_question: set[str] = dataclasses.field(default_factory=set)  # taken; whether they can be had is not known yet
    _refused: set[str] = dataclasses.field(default_factory=set)  # of this list
    _due: weakref.WeakKeyDictionary[Look, _Due] = dataclasses.field(default_factory=weakref.WeakKeyDictionary)
    # It is re-entrant, because a garbage collection may drop a claim in any line.
    _mutex: AbstractContextManager[bool] = dataclasses.field(default_factory=threading.RLock)

    listings: int = 0
    """Never shared: they cost nothing."""

    def is_any_left(self) -> bool:
        """Tell whether names are left."""
        return bool(self._names or self._in_question)

    def close(self) -> None:
        """Do nothing: the source holds only names."""

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
        attempt: Callable[[], Mark] | None = None,  # noqa: ARG002  # the caller writes it down
    ) -> Next[A]:
        """Claim the first entries that can be had."""
        found: Next[A] = Next()
        call, tries = _Call(gate, look.given, before_commit, found.unreadable, self._due.setdefault(look, _Due())), 0
        try:
            self._shelf.look()
            self._look_for_earlier(look, gate)
            while not stopped() and (not found.claims or len(found.claims) < most()):
                state, name = self._next(call)
                if name:
                    claimed = self._try(state, name, call)
                    if claimed is not None:
                        found.claims.append(claimed)
                    elif (tries := tries + 1) >= TRIES_AT_A_TIME:
                        break
                elif found.claims or listed_only:
                    break
                elif look.listing_took is None:
                    before_listing()
                    look.listing_took = self._list(gate, unless_there=True)
                else:
                    return Next([], found.unreadable, self._nothing_left(look.listing_took, call))
        except SpoolError:
            if not found.claims:
                raise
        except BaseException:  # of any kind: nobody will get these entries
            self.take_back(found.claims, look, gate)
            raise
        return found

    def take_back(self, claims: list[tuple[Claim, Any]], look: Look, gate: Gate[Any]) -> None:
        """Release entries that nobody will get, as if they had never been claimed."""
        for claim, admission in reversed(claims):
            if look.given is not None:
                look.given.discard(claim.name)
            release_or_let_go(self._storage, claim)
            gate.leave(admission)
            with self._mutex:
                if claim.due_at is None:
                    self._names.appendleft(claim.name)

    def _look_for_earlier(self, look: Look, gate: Gate[Any]) -> None:
        """Find new names that sort before listed ones; not in a pass, which would go again over all it has given."""
        if not self._names or look.given is not None or self._sorts_last:
            return
        if self._claims_left <= 0:
            _ = self._list(gate)
            return
        with self._mutex:
            self._arrivals, new = self._shelf.arrived(self._arrivals, self._names[0])
            if new:
                self._names = collections.deque(sorted(new.union(self._names)))

    def _list(self, gate: Gate[Any], *, unless_there: bool = False) -> float | None:
        """Make the list anew, and return how long that took; `None`: another thread has made it meanwhile."""
        elapsed = stopwatch()
        with self._mutex:
            if unless_there and self._names:
                return None
            self._arrivals, _ = self._shelf.arrived(self._arrivals, "")
            self._names = collections.deque(self._shelf.names())
            self._claims_left = max(len(self._names), FEWEST_CLAIMS)
            self._refused.clear()
            gate.listed(self._names)
        return elapsed()

    def _next(self, call: _Call) -> tuple[State, str]:
        """Return the next entry to try, and where it is; an empty name if there is none."""
        shelf, due = self._shelf, call.due
        with self._mutex:
            for due_at, name in shelf.due(due.tried):
                if due_at > shelf.now():
                    break
                if name not in due.tried and not call.is_given(name):
                    due.tried.add(name)
                    return State.WAITING, name
            while self._names:
                name = self._names.popleft()
                if call.is_given(name):
                    continue
                if not call.gate.is_full(name):
                    self._in_question.add(name)
                    return State.AVAILABLE, name
                self._refused.add(name)
        return State.AVAILABLE, ""

    def _try(self, state: State, name: str, call: _Call) -> tuple[Claim, Any] | None:
        """Claim an entry that is admitted; `None` if it cannot be had."""
        try:
            return None if name in call.gate.ignored else self._admit(Place(self._queue, state), name, call)
        except EntryNotFound:
            call.due.tried.discard(name)
        except UnreadableEntry as error:
            call.unreadable.append(error)
            call.due.unreadable = True
        except BaseException:  # nobody has it: it is tried again first
            with self._mutex:
                if state is State.WAITING:
                    call.due.tried.discard(name)
                else:
                    self._names.appendleft(name)
            raise
        finally:
            self._in_question.discard(name)
            if state is State.WAITING:
                self._shelf.was_tried(name)
        return None

    def _admit(self, place: Place, name: str, call: _Call) -> tuple[Claim, Any] | None:
        admission, claimed = call.gate.admit(name, lambda: self._storage.read_metadata(place, name)), None
        try:
            if admission is None:
                claim: Claim | Unavailable | NotDue = Unavailable.BUSY
            else:
                now = self._shelf.now()
                claim = self._storage.claim(place, name, due_by=now, before_commit=call.before_commit)
            if claim is Unavailable.BUSY:  # it is there, and cannot be had now
                if place.state is State.WAITING:
                    call.due.busy = True
                else:
                    self._refused.add(name)
            elif isinstance(claim, (Unavailable, NotDue)):  # it may wait again by now, and become due
                call.due.tried.discard(name)
            elif call.given is not None and not call.given.add(name):  # another thread has given it meanwhile
                release_or_let_go(self._storage, claim)
            else:
                self._claims_left -= 1
                call.due.tried.discard(name)  # it may be taken back
                claimed = claim, admission
        finally:
            if claimed is None and admission is not None:
                call.gate.leave(admission)
        return claimed

    def _nothing_left(self, listing_took: float, call: _Call) -> NothingLeft:
        shelf, due = self._shelf, call.due
        with self._mutex:
            shelf.look()
            held = shelf.is_any_held()
            waiting = shelf.due(due.tried)
            to_come = (due_at for due_at, name in waiting if name not in due.tried and not call.is_given(name))
            next_due = next(to_come, None)
            busy = bool(due.busy or self._refused or self._names or self._in_question)
        # The death of an owner is not announced, nor the end of a lock, nor that an entry can be read again.
        announced = not held and not busy and not due.unreadable
        passed_over = bool(self._refused) or call.given is not None
        return NothingLeft(listing_took, held, busy, announced, next_due, passed_over=passed_over)
