"""What examining a store finds, as plain values: the findings on each name, and files that belong to no name.

A snapshot of a spool is a stream of these. It leaves out the names of which nothing can be wrong, so that it is small
however full the spool is (see `examining`).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, TypeAlias, final

import msgspec

from trio_multispool.model.lifecycle import Place, State

if TYPE_CHECKING:
    from collections.abc import Callable

    Judge: TypeAlias = Callable[[str, bytes], str | None]
    """Says why the metadata of an entry of that queue cannot be decoded, or `None` if it can be, or nobody knows."""


class Kind(enum.Enum):
    """What a directory of a spool is for; the value is its name, of those that there is one of."""

    SPOOL = "."
    REGISTRY = ".registry"
    TEMPORARY = ".tmp"
    DATA = ".data"
    NOTES = ".notes"
    REMEMBERED = ".keys"
    REASONS = ".quarantine/.reasons"
    QUEUE = "queue"
    WAITING = "waiting"
    CHECKOUT = "check-outs"
    QUARANTINE = ".quarantine"


_KINDS: Final = {
    State.AVAILABLE: Kind.QUEUE,
    State.WAITING: Kind.WAITING,
    State.CHECKED_OUT: Kind.CHECKOUT,
    State.QUARANTINED: Kind.QUARANTINE,
}
_STATES: Final = {kind: state for state, kind in _KINDS.items()}


@final
class Dir(msgspec.Struct, frozen=True):
    """A directory of a spool: a place of entries, or one of those that hold what belongs to them."""

    kind: Kind
    queue: str = ""
    """Of a place: the queue."""

    @classmethod
    def of(cls, place: Place) -> Dir:
        """Return the directory of a place."""
        return cls(_KINDS[place.state], place.queue)

    @property
    def place(self) -> Place | None:
        """The place of entries that it is, if it is one."""
        return Place(self.queue, _STATES[self.kind]) if self.queue else None

    @property
    def path(self) -> str:
        """Where it is, relative to the spool."""
        match self.kind:
            case Kind.QUEUE:
                return self.queue
            case Kind.WAITING:
                return f"{self.queue}/.waiting"
            case Kind.CHECKOUT:
                return f"{self.queue}/.checkout"
            case Kind.QUARANTINE if self.queue:
                return f"{self.kind.value}/{self.queue}"
            case _:
                return str(self.kind.value)

    def __str__(self) -> str:
        return self.path


REGISTRY: Final = Dir(Kind.REGISTRY)
DATA: Final = Dir(Kind.DATA)
NOTES: Final = Dir(Kind.NOTES)
TEMPORARY: Final = Dir(Kind.TEMPORARY)


class Holder(enum.Enum):
    """Who has the lock of a name."""

    NOT_ASKED = "nobody has looked"
    SOMEBODY = "somebody has it, or its files were moving"
    NOBODY = "nobody has it"
    NO_RESERVATION = "there is no reservation to lock"
    UNTOLD = "users of this spool need not take locks"


@final
class Trace(msgspec.Struct, frozen=True):
    """A regular file under a name."""

    dir: Dir
    modified_at: float
    """When its content was last written, in seconds since 1970; of an entry that waits, when it is due."""
    changed_at: float
    """When it was last moved, if it was not written since."""
    identity: int
    """The same for as long as it is the same file (its inode)."""
    fault: str | None = None
    """Of the metadata of an available entry: why it cannot be decoded."""


@final
class Findings(msgspec.Struct, frozen=True):
    """All that lies under one name, but for temporary files."""

    name: str
    files: tuple[Trace, ...]
    holder: Holder = Holder.NOT_ASKED

    def at(self, directory: Dir) -> Trace | None:
        """Return the file in that directory."""
        return next((file for file in self.files if file.dir == directory), None)


@final
class Temporary(msgspec.Struct, frozen=True):
    """A file in `.tmp`."""

    name: str
    modified_at: float


@final
class Foreign(msgspec.Struct, frozen=True):
    """What is no part of a spool."""

    dir: Dir
    name: str
    changed_at: float
    what: str
    """What it is, in words: `a symbolic link`."""


Finding: TypeAlias = Findings | Temporary | Foreign
"""One part of a snapshot."""


@final
class Wanted(msgspec.Struct, frozen=True):
    """What besides the irregular an examination is to look at closely."""

    modified_before: dict[str, float] = {}
    """By queue: what is available there and was last written, or waits and was due, before this time."""
    names: frozenset[str] = frozenset()
    """These, whatever can be said of them."""
    judged: frozenset[str] = frozenset()
    """The queues of which all metadata is read and judged."""
    judged_since: float = 0.0
    """Metadata is judged only if the file was written or moved since this time."""
