"""The claims and reservations that the store in PostgreSQL hands out: an owner, and a token of his.

The token is a number that the owner counts up: no two of his check-outs have the same. A settlement names both. So an
entry is settled by who has it, whatever anybody thinks of who is alive.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, final

from trio_multispool.errors import OwnershipLost
from trio_multispool.model.lifecycle import State, Step, next_state
from trio_multispool.model.notes import decode_notes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import msgspec

    LetGo = Callable[[str, int], None]


@final
class PostgresReservation:
    """A reserved name. If it has no row, it is only known here: nobody else makes that name, or it is used at once."""

    def __init__(self, name: str, token: int, let_go: LetGo, *, has_row: bool) -> None:
        self.name: str = name
        self.token: int = token
        self.has_row: bool = has_row
        self.held: bool = True
        self.state: State = State.NOTHING
        self._let_go = let_go

    def abandon(self) -> None:
        """Let go of the name."""
        if self.held:
            self.held = False
            if self.has_row and self.state is State.NOTHING:
                self._let_go(self.name, self.token)

    def end(self, state: State) -> None:
        """Note that it was used, or given up."""
        self.state, self.held = state, False


@final
class PostgresClaim:
    """An entry that is checked out. One that is `taken` from its owner is not held: it can only be settled."""

    __slots__ = (
        "__weakref__", "_let_go", "begun", "carrier", "data", "due_at", "held", "is_large", "is_remembered",
        "metadata", "name", "notes", "owner", "queue", "state", "taken", "token", "written_at",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # the columns of a row
        self,
        let_go: LetGo,
        owner: int,
        token: int,
        queue: str,
        name: str,
        metadata: bytes,
        due_at: float | None,
        written_at: float,
        notes: bytes | None,
        carrier: bytes | None,
        data: bytes | None,
        *,
        is_large: bool,
        is_remembered: bool,
        taken: bool = False,
    ) -> None:
        self._let_go = let_go
        self.owner: int = owner
        self.token: int = token
        self.queue: str = queue
        self.name: str = name
        self.metadata: bytes = metadata
        self.due_at: float | None = due_at
        self.written_at: float = written_at
        self.notes: bytes | None = notes
        """As they are stored: nobody but the owner changes them."""
        self.carrier: bytes | None = carrier
        self.data: bytes | None = data
        """The data, if they are small, until they have been read once."""
        self.is_large: bool = is_large
        """Whether the data are in chunks."""
        self.is_remembered: bool = is_remembered
        """Whether its name will be remembered."""
        self.taken: bool = taken
        self.held: bool = not taken
        """Whether it was not settled, let go of, or lost."""
        self.state: State = State.CHECKED_OUT

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
        if self.state is not State.CHECKED_OUT or not (self.held or self.taken):
            raise OwnershipLost(self.queue, self.name)

    def settle(self, state: State) -> None:
        """Note the commit."""
        self.state, self.held, self.data = state, False, None

    def lose(self) -> OwnershipLost:
        """Note that somebody else has the entry; return what to tell the owner."""
        self.held = self.taken = False
        return OwnershipLost(self.queue, self.name)


@final
class InHand:
    """The claims that this process has, by name; used by any number of threads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._mutex = threading.RLock()  # a garbage collection may drop a claim in any line
        self._claims: weakref.WeakValueDictionary[str, PostgresClaim] = weakref.WeakValueDictionary()
        self._lost: dict[str, weakref.ref[PostgresClaim]] = {}

    def add(self, claims: Iterable[PostgresClaim]) -> None:
        """Take note of new claims."""
        with self._mutex:
            for claim in claims:
                self._claims[claim.name] = claim

    def find(self, name: str) -> PostgresClaim | None:
        """Return the claim on an entry, if this process has it."""
        with self._mutex:
            claim = self._claims.get(name)
        return claim if claim is not None and claim.held else None

    def all(self) -> dict[str, int]:
        """Return the tokens of what is in hand, by name."""
        with self._mutex:
            return {claim.name: claim.token for claim in list(self._claims.values()) if claim.held}

    def lose(self, tokens: dict[str, int]) -> None:
        """Mark claims as lost."""
        with self._mutex:
            for name, token in tokens.items():
                claim = self.find(name)
                if claim is not None and claim.token == token:
                    _ = claim.lose()
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
