"""A mail spool to test with, in a directory or elsewhere, and readers of what lies there that know no library."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import os
import stat
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from helpers.calls import WithoutSyncs
from helpers.gates import breathe
from helpers.inside import storage_of
from trio_multispool import Spool, Spoolable

if TYPE_CHECKING:
    from collections.abc import Iterator

Location = Path | str
"""Where a spool is: the path of its directory, or its location as a string."""

_opened: list[weakref.ref[Spool[Any, Any, Any, Any]]] | None = None


@contextlib.contextmanager
def closing_at_last() -> Iterator[None]:
    """Close the stores of all spools that the block opens and leaves open, as the end of their process would."""
    global _opened  # noqa: PLW0603  # fixtures are not seen by functions that a test calls
    _opened = []
    try:
        yield
    finally:
        for spool in filter(None, (each() for each in _opened)):
            storage_of(spool).close()
        _opened = None


def _note(spool: Spool[Any, Any, Any, Any]) -> Spool[Any, Any, Any, Any]:
    if _opened is not None:
        _opened.append(weakref.ref(spool))
    return spool


def is_url(place: Location) -> bool:
    """Tell whether a spool is somewhere else than in a directory."""
    return "://" in os.fspath(place)


class Mail(enum.Enum):
    """The queues."""

    SEND = "send"
    RETRY = "retry"
    FAILED = "failed"


class Envelope(msgspec.Struct):
    """The metadata."""

    recipient: str
    attempts: int = 0


MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes)

ANNE = Envelope("anne@example.org")
BERT = Envelope("bert@example.org")


START = datetime.datetime(2037, 1, 1, 8, tzinfo=datetime.UTC).timestamp()
"""On the hour. It is ahead of the real clock, by more than any test lets pass, until 2037; some tests need that.

It is not later, because file systems' time stamps may end in January 2038, and tests add up to 366 days.
"""


class Wall:
    """A wall clock that goes when it is told to."""

    def __init__(self) -> None:
        """Begin at `START`."""
        self.time = START

    def __call__(self) -> float:
        """Tell the time."""
        return self.time


async def make_spool(
    place: Location, spoolable: Spoolable[Any, Any, Any, Any] = MAIL, **options: Any
) -> Spool[Any, Any, Any, Any]:
    """Create a spool at `place`, or load the one that is there."""
    return _note((await Spool.create(place, spoolable, **options)).unwrap())


async def load_spool(
    place: Location, spoolable: Spoolable[Any, Any, Any, Any] = MAIL, **options: Any
) -> Spool[Any, Any, Any, Any]:
    """Load the spool at `place`."""
    return _note((await Spool.load(place, spoolable, **options)).unwrap())


async def quick_spool(
    place: Location, spoolable: Spoolable[Any, Any, Any, Any] = MAIL, **options: Any
) -> Spool[Any, Any, Any, Any]:
    """Create a spool likewise, that does not take the time to sync, unless it is given system calls of its own."""
    return await make_spool(place, spoolable, **{**unsynced(place), **options})


def unsynced(place: Location) -> dict[str, Any]:
    """Return the options by which a spool does not take the time to sync; elsewhere than in a directory it does."""
    return {} if is_url(place) else {"system_calls": WithoutSyncs()}


async def put(spool: Spool[Any, Any, Any, Any], queue: Mail, *names: str, data: bytes = b"Hello") -> list[Any]:
    """Enqueue an entry under each name, with the name as its recipient."""
    from trio_multispool import Use

    return [(await spool.enqueue(queue, Envelope(name), data, name=Use(name))).unwrap() for name in names]


async def names_in(spool: Spool[Any, Any, Any, Any], queue: Any) -> list[str]:
    """List a queue by the names of its entries."""
    return [entry.name for entry in (await spool.entries(queue)).unwrap()]


async def recover(spool: Spool[Any, Any, Any, Any]) -> list[Any]:
    """Recover what was just let go of, or is a dead owner's, as soon as that is known to the store."""
    with anyio.fail_after(60):
        while not (found := (await spool.recover()).unwrap()):
            await breathe()
    return found


# What lies on disk, read without the library


@dataclasses.dataclass(frozen=True)
class Node:
    """One file, directory or other thing in a tree, as `lstat` and `read` show it."""

    kind: str
    mode: int
    inode: int
    modified_ns: int
    content: bytes | None
    """Of a regular file; of a symlink, where it points."""


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def snapshot(path: Path) -> dict[str, Node]:
    """Return everything below `path` (and, under `.`, itself) with contents, modes, inodes and times."""
    found = {".": _node(os.fspath(path))}
    for directory, directories, files in os.walk(path):
        for name in [*directories, *files]:
            full = os.path.join(directory, name)
            found[os.path.relpath(full, path)] = _node(full)
    return dict(sorted(found.items()))


def _node(path: str) -> Node:
    found = os.lstat(path)
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "other")
    content = None
    if kind == "file":
        with open(path, "rb") as file:
            content = file.read()
    elif kind == "symlink":
        content = os.fsencode(os.readlink(path))
    return Node(kind, stat.S_IMODE(found.st_mode), found.st_ino, found.st_mtime_ns, content)


def contents(path: Path) -> dict[str, bytes | None]:
    """Return what `snapshot` finds by its content alone: `None` for what is no file and no symlink."""
    return {name: node.content for name, node in snapshot(path).items() if name != "."}


@dataclasses.dataclass(frozen=True)
class State:
    """The whole state of a spool, read from its files, by the layout that is promised, or from its tables."""

    available: dict[str, dict[str, bytes]]
    """By queue and name: the metadata's bytes. Queues that are empty are there too."""
    waiting: dict[str, dict[str, bytes]]
    checked_out: dict[str, dict[str, bytes]]
    quarantined: dict[str, dict[str, bytes]]
    """Only of queues that have a directory in the quarantine."""
    reasons: dict[str, str]
    data: dict[str, bytes]
    registry: set[str]
    keys: set[str]
    """Names that are remembered, or will be when their entries are removed."""
    temporary: dict[str, bytes]
    notes: dict[str, bytes]
    asked: set[str]
    """Names for which there is a request to cancel."""
    adopted: bool

    def places(self, name: str) -> list[str]:
        """Return where an entry is, as relative directories."""
        return (
            [queue for queue, found in self.available.items() if name in found]
            + [f"{queue}/.waiting" for queue, found in self.waiting.items() if name in found]
            + [f"{queue}/.checkout" for queue, found in self.checked_out.items() if name in found]
            + [f".quarantine/{queue}" for queue, found in self.quarantined.items() if name in found]
        )

    def entries(self) -> set[str]:
        """Return the names in all places."""
        places = [self.available, self.waiting, self.checked_out, self.quarantined]
        return {name for kind in places for found in kind.values() for name in found}

    def names(self, queue: str) -> list[str]:
        """Return the names available in a queue, sorted."""
        return sorted(self.available[queue])

    def faults(self) -> list[str]:
        """Return what contradicts the promise of a spool at rest: each entry once, whole, and nothing else."""
        entries = self.entries()
        found = [f"{name} is in {self.places(name)}" for name in sorted(entries) if len(self.places(name)) > 1]
        found += [f"{name} has no data" for name in sorted(entries - set(self.data))]
        found += [f"{name} has no reservation" for name in sorted(entries - self.registry)]
        found += [f"data of {name} belongs to no entry" for name in sorted(set(self.data) - entries)]
        found += [f"the reservation of {name} belongs to no entry" for name in sorted(self.registry - entries)]
        found += [f"notes of {name} belong to no entry" for name in sorted(set(self.notes) - entries)]
        found += [f"the request to cancel {name} is about no entry" for name in sorted(self.asked - entries)]
        found += [f".tmp/{name} was left" for name in sorted(self.temporary)]
        return found


def state_of(place: Location) -> State:
    """Read a spool's state without the library, wherever it is. Takes no locks.

    Of entries in motion in a directory it may see both ends, or none.
    """
    if is_url(place):
        from helpers.rows import state_in_tables

        return state_in_tables(os.fspath(place))
    path = Path(place)
    queues = sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    quarantine = path / ".quarantine"
    aside = sorted(c.name for c in quarantine.iterdir() if not c.name.startswith(".")) if quarantine.is_dir() else []
    return State(
        available={queue: _files(path / queue) for queue in queues},
        waiting={queue: _files(path / queue / ".waiting") for queue in queues},
        checked_out={queue: _files(path / queue / ".checkout") for queue in queues},
        quarantined={queue: _files(quarantine / queue) for queue in aside},
        reasons={name: text.decode() for name, text in _files(quarantine / ".reasons").items()},
        data=_files(path / ".data"),
        registry=set(_files(path / ".registry")),
        keys=set(_files(path / ".keys")),
        temporary=_files(path / ".tmp"),
        notes=_files(path / ".notes"),
        asked=set(_files(path / ".cancel")),
        adopted=(path / ".spool.json").is_file(),
    )


def _files(directory: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    if directory.is_dir():
        for child in directory.iterdir():
            try:
                if stat.S_ISREG(child.lstat().st_mode):
                    found[child.name] = child.read_bytes()
            except FileNotFoundError:
                continue
    return found
