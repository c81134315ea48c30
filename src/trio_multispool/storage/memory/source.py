"""Where readers of a store in memory find their next entries: due ones first, then a sorted list of names.

New names are put into the list in their order. An entry that was released is not: it is in the next list, so that it
waits its turn.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any, NamedTuple, final

from trio_multispool.clock import stopwatch
from trio_multispool.errors import EntryNotFound, SpoolError, UnreadableEntry
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.requests import NotDue
from trio_multispool.storage.singly import release_or_let_go
from trio_multispool.storage.source import Next, NothingLeft

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.memory.contents import Contents
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.source import A, Gate, Given, Look


class _Call(NamedTuple):
    """What one call of `claim` is given for each of its tries."""

    gate: Gate[Any]
    given: Given | None
    before_commit: Callable[[], None]
    unreadable: list[UnreadableEntry]
    tried: set[str]
    """Names of due entries: each is tried once."""

    def is_given(self, name: str) -> bool:
        """Tell whether an entry was given before in this pass."""
        return self.given is not None and name in self.given


@final
class MemorySource:
    """The entries of one queue, for one reader."""

    def __init__(self, storage: Storage[Any, Any], contents: Contents, queue: str) -> None:
        """Begin with no names."""
        self._storage = storage
        self._contents = contents
        self._queue = queue
        self._first: list[tuple[State, str]] = []  # what was taken back, the last of it first
        self._names: list[str] = []  # sorted
        self._refused: set[str] = set()  # since the last list
        contents.listeners.add(self)

    def close(self) -> None:
        """Forget the names."""
        self._contents.listeners.discard(self)

    def tell(self, queue: str, new: str | None) -> None:
        """Put a new name where it sorts; under the mutex."""
        if queue == self._queue and new is not None:
            bisect.insort(self._names, new)

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
        """Claim the first entries that can be had."""
        found: Next[A] = Next()
        call = _Call(gate, look.given, before_commit, found.unreadable, set())
        try:
            while not stopped() and (not found.claims or len(found.claims) < most()):
                candidate = self._next(call)
                if candidate is not None:
                    claimed = self._try(*candidate, call)
                    if claimed is not None:
                        found.claims.append(claimed)
                elif found.claims or listed_only:
                    break
                elif look.listing_took is None:
                    before_listing()
                    self._list(look, gate)
                else:
                    return Next([], found.unreadable, self._nothing_left(look.listing_took))
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
            state = State.AVAILABLE if claim.due_at is None else State.WAITING
            with self._contents.mutex:
                self._first.append((state, claim.name))

    def _list(self, look: Look, gate: Gate[Any]) -> None:
        elapsed = stopwatch()
        with self._contents.mutex:
            self._names = self._contents.names(self._queue)
            self._refused.clear()
            gate.listed(self._names)
        look.listing_took = elapsed()

    def _next(self, call: _Call) -> tuple[State, str] | None:
        """Return the next entry to try, and where it is."""
        contents = self._contents
        with contents.mutex:
            while self._first:
                state, name = self._first.pop()
                if not call.is_given(name):
                    return state, name
            for due_at, name in contents.due(self._queue):
                if due_at > contents.now():
                    break
                if name not in call.tried and not call.is_given(name):
                    call.tried.add(name)
                    return State.WAITING, name
            while self._names:
                name = self._names.pop(0)
                if call.is_given(name):
                    continue
                if not call.gate.is_full(name):
                    return State.AVAILABLE, name
                self._refused.add(name)
        return None

    def _try(self, state: State, name: str, call: _Call) -> tuple[Claim, Any] | None:
        """Claim an entry that is admitted; `None` if it cannot be had."""
        if call.gate.ignores(name):
            return None
        place = Place(self._queue, state)
        try:
            admission = call.gate.admit(name, lambda: self._storage.read_metadata(place, name))
            if admission is None:
                self._refused.add(name)
                return None
            claim: Claim | None = None
            try:
                claim = self._claim(place, name, call)
            finally:
                if claim is None:
                    call.gate.leave(admission)
        except EntryNotFound:
            return None
        except UnreadableEntry as error:
            call.unreadable.append(error)
            return None
        except BaseException:  # nobody has it: it is tried again first
            with self._contents.mutex:
                self._first.append((state, name))
            raise
        return None if claim is None else (claim, admission)

    def _claim(self, place: Place, name: str, call: _Call) -> Claim | None:
        claim: Claim | Unavailable | NotDue = self._storage.claim(
            place, name, due_by=self._contents.now(), before_commit=call.before_commit
        )
        if isinstance(claim, (Unavailable, NotDue)):
            if claim is Unavailable.BUSY:
                self._refused.add(name)
            return None
        if call.given is not None and not call.given.add(name):  # another thread has given it meanwhile
            release_or_let_go(self._storage, claim)
            return None
        return claim

    def _nothing_left(self, listing_took: float) -> NothingLeft:
        contents = self._contents
        with contents.mutex:
            held = next(contents.each(self._queue, State.CHECKED_OUT), None) is not None
            waiting = contents.due(self._queue)
            next_due = next((due_at for due_at, _ in waiting if due_at > contents.now()), None)
            busy = bool(self._refused or self._names)
        # The death of an owner is not announced, nor the end of a lock.
        return NothingLeft(listing_took, held, busy, announced=not held and not busy, next_due=next_due)
