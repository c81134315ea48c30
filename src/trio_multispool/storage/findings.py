"""What examining a store finds, as plain values: the findings on each name, and files that belong to no name.

A snapshot of a spool is a stream of these. It leaves out each name with which nothing can be wrong. So it stays small
even if the spool is full (see `directory/examine.py`). Another store than a directory has fewer: see `of_entry`.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Final, TypeAlias, final

import msgspec

from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.times import LATEST

if TYPE_CHECKING:
    from collections.abc import Callable

    Judge: TypeAlias = Callable[[str, bytes], str | None]
    """Returns why the metadata of an entry in a queue cannot be decoded; `None` if it can be, or if that is unknown."""


class Kind(enum.Enum):
    """What a directory of a spool is for. If a spool has only one of the kind, the value is its name."""

    SPOOL = "."
    REGISTRY = ".registry"
    TEMPORARY = ".tmp"
    DATA = ".data"
    NOTES = ".notes"
    REMEMBERED = ".keys"
    CANCELLATIONS = ".cancel"
    PAUSES = ".paused"
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
    """A directory of a spool: a place of entries, or a directory for the other files of entries."""

    kind: Kind
    queue: str = ""
    """The queue, if this is a place."""

    @classmethod
    def of(cls, place: Place) -> Dir:
        """Return the directory of a place."""
        return cls(_KINDS[place.state], place.queue)

    @property
    def place(self) -> Place | None:
        """The place, if this directory is one."""
        return Place(self.queue, _STATES[self.kind]) if self.queue else None

    @property
    def path(self) -> str:
        """The path relative to the spool."""
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
REMEMBERED: Final = Dir(Kind.REMEMBERED)
CANCELLATIONS: Final = Dir(Kind.CANCELLATIONS)
PAUSES: Final = Dir(Kind.PAUSES)
TEMPORARY: Final = Dir(Kind.TEMPORARY)


class Holder(enum.Enum):
    """Who holds the lock of a name."""

    NOT_ASKED = "nobody has looked"
    SOMEBODY = "somebody has it, or its files were moving"
    NOBODY = "nobody has it"
    NO_RESERVATION = "there is no reservation to lock"
    UNTOLD = "users of this spool need not take locks"


@final
class Trace(msgspec.Struct, frozen=True):
    """A regular file under a name, or what stands for one in a store that keeps none."""

    dir: Dir
    modified_at: float
    """When its content was last written, in seconds since 1970. If the entry waits: when it is due."""
    changed_at: float
    """When it was last moved or written, whichever is later."""
    identity: int
    """Its inode: equal for as long as it is the same file."""
    fault: str | None = None
    """Why the metadata cannot be decoded, if the entry is available and they cannot."""
    shut_by: str | None = None
    """Whose file it is, and its mode, if this process may not read it."""


def why_no_due_time(modified_at: float, changed_at: float) -> str | None:
    """Return why the date of an entry that waits cannot be when it is due; `None` if it can be.

    A due time is later than the moment in which it is set. So it is lost if the file was dated by its last write.
    An earlier date than that of the last change proves nothing: an entry that is overdue has one once it was moved.
    """
    if modified_at == changed_at:
        return "its file is dated by its last write, as in a copy that does not keep times"
    return None if modified_at < LATEST else "no entry is made to wait for so long"


@final
class Findings(msgspec.Struct, frozen=True):
    """All files under one name, except temporary ones."""

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
    """A file or directory that is not part of a spool."""

    dir: Dir
    name: str
    changed_at: float
    what: str
    """What it is, in words: `a symbolic link`."""


@final
class Spoilt(msgspec.Struct, frozen=True):
    """A file beside an entry, or of a remembered name, that cannot be read, or has a date that cannot be."""

    dir: Dir
    name: str
    changed_at: float
    fault: str
    """Why not."""


@final
class Shut(msgspec.Struct, frozen=True):
    """A directory of entries that this process may not read."""

    dir: Dir
    """The directory that it is in."""
    name: str
    changed_at: float
    shut_by: str
    """Whose it is, and its mode."""


def of_entry(  # noqa: PLR0913  # what a store keeps of an entry
    name: str,
    place: Place,
    *,
    written_at: float,
    moved_at: float,
    due_at: float | None,
    has_data: bool,
    fault: str | None,
    holder: Holder,
) -> Findings:
    """Return the findings on an entry of a store that keeps no files: it is in one place, and its name is reserved.

    `moved_at` is when it came there.
    """
    changed_at = max(written_at, moved_at)
    if place.state is State.WAITING and due_at is not None:  # which this store cannot lose, even if it is that moment
        written_at, changed_at = due_at, math.nextafter(changed_at, math.inf) if due_at == changed_at else changed_at
    files = [Trace(Dir.of(place), written_at, changed_at, 0, fault), Trace(REGISTRY, changed_at, changed_at, 0)]
    if has_data:
        files.append(Trace(DATA, changed_at, changed_at, 0))
    return Findings(name, tuple(files), holder)


def of_reservation(name: str, reserved_at: float, holder: Holder) -> Findings:
    """Return the findings on a name of such a store that is reserved, and has no entry."""
    return Findings(name, (Trace(REGISTRY, reserved_at, reserved_at, 0),), holder)


Loose: TypeAlias = Temporary | Foreign | Spoilt | Shut
"""What is judged by itself, and not together with all else under its name."""

Finding: TypeAlias = Findings | Loose
"""One part of a snapshot."""


@final
class Wanted(msgspec.Struct, frozen=True):
    """What an examination looks at closely, besides irregular names."""

    modified_before: dict[str, float] = {}
    """By queue: a time. Available entries that were written before it, and waiting ones that were due before it."""
    names: frozenset[str] = frozenset()
    """These names, in any case."""
    judged: frozenset[str] = frozenset()
    """The queues whose metadata is all read and judged."""
    judged_since: float = 0.0
    """Metadata is judged, and what lies beside it read, only if the file was written or moved since this time."""
