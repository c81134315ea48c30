"""Where readers of a directory find their next entries: what waited and is due, and then the names of a listing.

All readers of an open spool share what is known of a queue: its names (see `window`) and what waits (see `schedule`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from trio_multispool.errors import EntryNotFound, SpoolError, UnreadableEntry
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import checkout
from trio_multispool.storage.directory.disk.layout import directory_of
from trio_multispool.storage.directory.schedule import Due
from trio_multispool.storage.directory.window import Position, no_directory_is_empty
from trio_multispool.storage.protocol import Storage
from trio_multispool.storage.requests import NotDue
from trio_multispool.storage.singly import release_or_let_go
from trio_multispool.storage.source import Next, NothingLeft

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.model.attempts import Mark
    from trio_multispool.storage.directory.claims import DirectoryClaim
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.schedule import WaitingEntries
    from trio_multispool.storage.directory.window import Window
    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.source import A, Gate, Look


TRIES_AT_A_TIME: Final = 100
"""After this many tries, a failed one ends the hop. A hop cannot be cancelled; between two hops, the task can be."""


class _Store(Storage[Any, Any], Protocol):
    """The store, as a source uses it."""

    def read_listed(self, place: Place, name: str) -> bytes:
        """Do as `read_metadata` does, without looking whether the spool is where it was."""
        ...

    def close_source(self, queue: str) -> None:
        """Say that a source is not needed any more."""
        ...


class _Call(msgspec.Struct, eq=False):
    """What one call of `claim` is given for each of its tries."""

    gate: Any
    given: Any
    before_commit: Any
    unreadable: list[UnreadableEntry]


class DirectorySource:
    """The entries of one queue, as one reader finds them; any number of threads take from it."""

    def __init__(  # noqa: PLR0913  # made by the store alone
        self,
        storage: _Store,
        context: Context,
        queue: str,
        *,
        window: Window,
        waiting: WaitingEntries,
        sorts_last: bool,
    ) -> None:
        """Begin; `sorts_last`: new names sort after all older ones."""
        self._storage = storage
        self._context = context
        self._layout = context.layout
        self._place = Place(queue, State.AVAILABLE)
        self._waiting_place = Place(queue, State.WAITING)
        self._checkouts = directory_of(Place(queue, State.CHECKED_OUT))
        self._window = window
        self._waiting = waiting
        self._sorts_last = sorts_last
        self._position = Position()
        self._refused_of = 0  # an entry of this listing was refused
        self._told_of = 0  # the gate was told of this listing
        self._closed = False
        window.sources += 1

    def close(self) -> None:
        """Say that the reader needs the names no more."""
        if not self._closed:
            self._closed = True
            self._storage.close_source(self._place.queue)

    @property
    def listings(self) -> int:
        """How many listings of the queue were begun."""
        return self._window.listings

    def claim(  # noqa: C901, PLR0913  # every ending is a line; the protocol's parameters
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
        """Claim the first entries that can be had.

        Entries that waited and are due come before all listed ones. Otherwise they would never come while there is more
        work than can be done.
        """
        found: Next[A] = Next()
        claims, window, waiting = found.claims, self._window, self._waiting
        call, tries = _Call(gate, look.given, before_commit, found.unreadable), 0
        passes_over = self._passing_over(call)
        try:
            self._begin(look, listed_only=listed_only)
            while not stopped() and (not claims or len(claims) < most()):
                due = waiting.take() if waiting.heap else None
                name = None if due is not None else window.next(self._position, passes_over, waits=look.waits)
                if due is not None or name is not None:
                    tried = self._try_listed(name, call) if name is not None else self._try_due(due, call)
                    tries += 1
                    if tried is not None:
                        claims.append(tried)
                    elif tries >= TRIES_AT_A_TIME:
                        break
                elif claims or listed_only:
                    break
                elif look.listing_took is not None:
                    return Next([], found.unreadable, self._nothing_left(look, look.listing_took))
                elif not self._list(look, gate, before_listing):
                    break
        except SpoolError:
            if not claims:
                raise
        except BaseException:  # of any kind: nobody will get these entries
            self.take_back(claims, look, gate)
            raise
        return found

    def _begin(self, look: Look, *, listed_only: bool) -> None:
        if not listed_only:  # else the store has looked, for all that it settled
            self._layout.check_named()
            self._layout.follow(self._checkouts)
        _ = self._waiting.look(wanted=False)
        if not self._sorts_last and look.given is None:  # a pass would go again over all that it has given
            self._window.list_for_earlier(waits=look.waits)

    def _list(self, look: Look, gate: Gate[Any], before_listing: Callable[[], None]) -> bool:
        """Have the queue listed after the look began, by this reader or another one; `False`: it takes longer."""
        if look.began is None or self._window.listed <= look.began:
            before_listing()
        if look.began is None:
            look.began = self._window.listings
        if not self._waiting.look(wanted=True):
            return False
        look.listing_took = self._window.listed_since(look.began, waits=look.waits)
        if gate.admits is None and self._told_of != self._window.listings:
            self._told_of = self._window.listings
            gate.listed(self._window.names())
            self._position.at = 0  # what was put by because of what was known before is looked at once more
        return True

    def _passing_over(self, call: _Call) -> Callable[[str], bool] | None:
        """Return what tells, for a reader that passes entries over, which it leaves to the others."""
        gate, given = call.gate, call.given
        if gate.admits is not None and given is None:
            return None

        def passes_over(name: str) -> bool:
            if given is not None and name in given.names:
                return True
            if gate.admits is None and gate.is_full(name):
                self._refused_of = self._window.listings
                return True
            return False

        return passes_over

    def _nothing_left(self, look: Look, listing_took: float) -> NothingLeft:
        is_refused = self._refused_of == self._window.listings
        return NothingLeft(
            listing_took,
            self._is_any_held(look),
            is_refused or self._window.is_any_left() or self._waiting.busy,
            next_due=self._waiting.next_at(),
            passed_over=is_refused or look.given is not None,
            in_question=self._window.is_any_in_question(),
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
            else:
                self._window.put_back(claim.name)

    def is_any_left(self) -> bool:
        """Tell whether names are left, or are being tried."""
        return self._window.is_any_left()

    def _is_any_held(self, look: Look) -> bool:
        with no_directory_is_empty(wait=look.waits):
            return next(self._layout.each_entry_name(self._checkouts), None) is not None
        return True

    def _try_due(self, due: Due | None, call: _Call) -> tuple[Claim, Any] | None:
        """Claim an entry that waited; `None` if it cannot be had."""
        assert due is not None, "or there is a name"  # noqa: S101  # for the type checkers
        waiting = self._waiting
        try:
            if due.name in call.gate.ignored:
                return None
            if call.given is not None and due.name in call.given.names:
                waiting.put_aside(due)
                return None
            made = self._claim(self._waiting_place, due.name, call, self._storage.now())
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
        window = self._window
        if name in call.gate.ignored:
            window.leave(name, self._position)
            return None
        try:
            made = self._claim(self._place, name, call)
        except BaseException:  # nobody has it: it is tried again first
            window.decide(name, again=True)
            raise
        if isinstance(made, tuple):
            window.decide(name, claimed=True)
            return made
        if made is None:
            self._refused_of = window.listings
            window.leave(name, self._position)
        elif isinstance(made, Unavailable):
            window.decide(name, gone=made is Unavailable.GONE, busy=made is Unavailable.BUSY)
        else:
            window.decide(name)
        return None

    def _claim(
        self, place: Place, name: str, call: _Call, due_by: float = math.inf
    ) -> tuple[DirectoryClaim, Any] | Unavailable | NotDue | UnreadableEntry | None:
        """Claim an entry that is admitted. `None`: it is refused, or another thread has given it meanwhile."""
        admission, gate = call.gate.admits, call.gate
        if admission is None:
            try:
                admission = gate.admit(name, lambda: self._storage.read_listed(place, name))
            except EntryNotFound:
                return Unavailable.GONE
            if admission is None:
                return None
        kept = False
        try:
            claimed = checkout.claim(self._context, place, name, due_by=due_by, before_commit=call.before_commit)
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
                gate.leave(admission)
