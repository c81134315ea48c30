"""The claims and reservations that the store in PostgreSQL hands out: an owner, and a token of his.

The token is a number that the owner counts up: no two of his check-outs have the same. A settlement names both. So an
entry is settled by who has it, whatever anybody thinks of who is alive.
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import TYPE_CHECKING, NamedTuple, final

import msgspec

from trio_multispool.errors import OwnershipLost
from trio_multispool.model.attempts import ATTEMPTS, Mark, begun, encode_history, history_in
from trio_multispool.model.lifecycle import State, Step, next_state
from trio_multispool.model.notes import decode_beside, decode_notes, encode_notes
from trio_multispool.storage.handles import Noted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from trio_multispool.storage.requests import Notes

    LetGo = Callable[[str, int], None]


class PostgresReservation:
    """A reserved name. It has no row, and is known only here: nobody else makes that name, or it is used at once."""

    def __init__(self, name: str, token: int, *, has_row: bool = False) -> None:
        self.name: str = name
        self.token: int = token
        self.has_row: bool = has_row
        """Whether others see that it is reserved."""
        self.held: bool = True
        self.state: State = State.NOTHING

    def abandon(self) -> None:
        """Let go of the name."""
        self.held = False

    def end(self, state: State) -> None:
        """Note that it was used, or given up."""
        self.state, self.held = state, False


@final
class ReservationInRow(PostgresReservation):
    """A reserved name that has a row."""

    def __init__(self, name: str, token: int, let_go: LetGo) -> None:
        super().__init__(name, token, has_row=True)
        self._let_go = let_go

    def abandon(self) -> None:
        """Let go of the name, and soon of its row."""
        if self.held and self.has_row and self.state is State.NOTHING:
            self._let_go(self.name, self.token)
        super().abandon()

    def __del__(self) -> None:
        """Let go; at the end of the interpreter the server does."""
        if not sys.is_finalizing():
            self.abandon()


class Row(NamedTuple):
    """What a check-out reads of an entry, in the order of `take.COLUMNS`."""

    queue: str
    name: str
    metadata: bytes
    due_at: float | None
    written_at: float
    notes: bytes | None
    begun: bytes | None
    """Attempts that were begun before, and whose workers have died: marks, with commas between them."""
    carrier: bytes | None
    data: bytes | None
    is_large: bool
    is_remembered: bool
    arrived_at: float
    """When it came into its queue, in seconds since 1970."""


@final
class PostgresClaim:
    """An entry that is checked out. One that is `taken` from its owner is not held: it can only be settled."""

    def __init__(  # noqa: PLR0913  # what a row does not say
        self, row: Row, owner: int, token: int, let_go: LetGo, *, attempt: Mark | None = None, taken: bool = False
    ) -> None:
        self.queue: str = row.queue
        self.name: str = row.name
        self.metadata: bytes = row.metadata
        self.due_at: float | None = row.due_at
        self.written_at: float = row.written_at
        self.owner: int = owner
        self.token: int = token
        self.noted: Noted = Noted(with_attempts(read_notes(row.notes), row.begun), attempt)
        self.carrier: bytes | None = row.carrier
        self.data: bytes | None = row.data
        """The data, if they are small, as they were at the check-out; `None` once they were replaced."""
        self.is_large: bool = row.is_large
        """Whether the data are in chunks."""
        self.arrived_at: float = row.arrived_at
        """When it came into its queue, in seconds since 1970."""
        self.available_since: float | None = max(row.arrived_at, row.due_at or 0.0)
        """When it came into its queue, or became due, likewise."""
        self.is_remembered: bool = row.is_remembered
        """Whether its name will be remembered."""
        self.taken: bool = taken
        self.held: bool = not taken
        """Whether it was not settled, or let go of."""
        self.lost: bool = False
        """Whether it is known that somebody else may have the entry."""
        self.state: State = State.CHECKED_OUT
        self._let_go = let_go
        self._is_as_stored = attempt is None and row.begun is None

    def notes(self, changes: Notes) -> tuple[bytes | None, bool]:
        """Return the notes with some keys changed, and whether the row has others.

        An attempt that was noted with the check-out, and of which the changes say nothing, was not begun after all.
        """
        if not changes and self._is_as_stored:
            return None, False
        return encoded({**self.noted.found, **changes}), True

    def annotate(self, key: str, value: bytes | None) -> bytes | None:
        """Take note of a change, and return all notes for the row; what was begun is in them, or struck out."""
        notes, _ = self.notes({key: value})
        self.noted = Noted(read_notes(notes))
        self._is_as_stored = True
        return notes

    def abandon(self) -> None:
        """Let go of the entry."""
        if self.held:
            self.held = False
            if self.state is State.CHECKED_OUT:
                self._let_go(self.name, self.token)

    def check(self, step: Step) -> State:
        """Return the state after a step. Raises `IllegalStepError` if the claim was settled, and `OwnershipLost`."""
        target = next_state(step, self.state)
        self.check_owned()
        return target

    def check_owned(self) -> None:
        """Raise `OwnershipLost` if it is known that the entry is not this claim's any more."""
        if self.lost or self.state is not State.CHECKED_OUT or not (self.held or self.taken):
            raise OwnershipLost(self.queue, self.name)

    def __del__(self) -> None:
        """Let go; at the end of the interpreter the server does."""
        if not sys.is_finalizing():
            self.abandon()

    def settle(self, state: State) -> None:
        """Note the commit."""
        self.state, self.held, self.data = state, False, None


@final
class InHand:
    """The claims that this process has, by name, and the names; used by any number of threads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._mutex = threading.RLock()  # a garbage collection may drop a claim in any line
        self._claims: weakref.WeakValueDictionary[str, PostgresClaim] = weakref.WeakValueDictionary()
        self._lost: dict[str, weakref.ref[PostgresClaim]] = {}
        self._reserved: weakref.WeakValueDictionary[int, ReservationInRow] = weakref.WeakValueDictionary()
        self.taking: set[int] = set()
        """The tokens with which something is checked out, or reserved, at the moment."""

    def add(self, claims: Iterable[PostgresClaim]) -> None:
        """Take note of new claims."""
        with self._mutex:
            for claim in claims:
                self._claims[claim.name] = claim
                _ = self._lost.pop(claim.name, None)  # what was lost is over, however long its work goes on

    def add_reserved(self, reservation: ReservationInRow) -> None:
        """Take note of a name."""
        with self._mutex:
            self._reserved[reservation.token] = reservation

    def tokens(self) -> set[int]:
        """Return the tokens of all that is in hand, or is being taken."""
        with self._mutex:
            taking = set(self.taking)  # first: what was taken meanwhile is among the others
            reserved = {each.token for each in list(self._reserved.values()) if each.held}
            return taking | reserved | set(self.all().values())

    def find(self, name: str) -> PostgresClaim | None:
        """Return the claim on an entry, if this process has it."""
        with self._mutex:
            claim = self._claims.get(name)
        return claim if claim is not None and claim.held and not claim.lost else None

    def all(self) -> dict[str, int]:
        """Return the tokens of what is in hand, by name."""
        with self._mutex:
            return {claim.name: claim.token for claim in list(self._claims.values()) if claim.held and not claim.lost}

    def lose(self, tokens: dict[str, int]) -> None:
        """Mark claims as lost."""
        with self._mutex:
            for name, token in tokens.items():
                claim = self.find(name)
                if claim is not None and claim.token == token:
                    claim.lost = True
                    self._lost[name] = weakref.ref(claim)

    def lost(self) -> list[str]:
        """Return the names of what was lost, and is still worked on."""
        with self._mutex:
            for name, reference in list(self._lost.items()):
                claim = reference()
                if claim is None or claim.state is not State.CHECKED_OUT:
                    del self._lost[name]
            return list(self._lost)


def read_notes(raw: bytes | None) -> dict[str, msgspec.Raw]:
    """Return notes by key; none if they cannot be read."""
    try:
        return decode_notes(raw) if raw else {}
    except ValueError:
        return {}


def with_attempts(notes: dict[str, msgspec.Raw], raw: bytes | None) -> dict[str, msgspec.Raw]:
    """Return notes with the attempts that were begun since they were written."""
    marks = _marks(raw)
    if not marks:
        return notes
    history = history_in(notes)
    for mark in marks:
        history = begun(history, mark)
    return notes if history is None else {**notes, ATTEMPTS: msgspec.Raw(encode_history(history))}


def without_last(raw: bytes | None) -> bytes | None:
    """Return the attempts that were begun before the last one."""
    earlier = _marks(raw)[:-1]
    return b",".join(map(msgspec.json.encode, earlier)) if earlier else None


def _marks(raw: bytes | None) -> list[Mark]:
    """Return attempts that were begun; none if they cannot be read."""
    try:
        return decode_beside(b"[" + raw + b"]", list[Mark]) if raw else []
    except ValueError:
        return []


def encoded(notes: Mapping[str, bytes | msgspec.Raw | None]) -> bytes | None:
    """Return notes as they are stored; nothing if there are none."""
    left = {key: msgspec.Raw(value) for key, value in notes.items() if value is not None}
    return encode_notes(left) if left else None
