"""What one look at a spool sees: values, with times as seconds since 1970."""

from typing import Any, TypeAlias, final

import msgspec

from trio_multispool.model.lifecycle import State
from trio_multispool.model.pauses import Pause
from trio_multispool.storage.protocol import Storage
from trio_multispool.storage.requests import Owner

AnyStorage: TypeAlias = Storage[Any, Any]
"""A store of any kind."""


@final
class Sample(msgspec.Struct, frozen=True):
    """Which names were seen in a queue: one in `2 ** bits`, the same in each look."""

    bits: int = 0
    names: frozenset[str] = frozenset()


@final
class QueueLook(msgspec.Struct, frozen=True):
    """One queue as it was seen."""

    queue: str
    available: int = 0
    held: int = 0
    """How many are checked out."""
    aside: int = 0
    """How many are in quarantine."""
    sample: Sample = Sample()
    """Of the names of all that is available, checked out or waiting."""
    oldest_at: float | None = None
    """When the metadata of the oldest available entry was written."""
    oldest_of_all: bool = True
    """Whether all entries were looked at to find the oldest, or, of a long queue, the first by name."""
    waiting: int = 0
    """How many are not due yet."""
    pause: Pause | None = None
    """That readers are to take nothing new from it."""

    @property
    def total(self) -> int:
        """How many entries are available, checked out or waiting."""
        return self.available + self.held + self.waiting


@final
class Entry(msgspec.Struct, frozen=True):
    """An entry that was examined."""

    queue: str
    name: str
    state: State
    since: float
    """Since when it has been in that state: the time of its file's last rename, or change."""
    written_at: float = 0.0
    """When its metadata was written."""
    size: int = 0
    """Of the metadata, in bytes."""
    by: str = ""
    """The process that has it, for a person."""
    owner: Owner | None = None
    """The same, as far as the store can tell."""
    progress: str = ""
    """How far the owner says that it is; before that, whether somebody asked to cancel it."""


@final
class Look(msgspec.Struct, frozen=True):
    """A spool as it was seen."""

    at: float
    instant: float
    """The same on a clock that never steps, for differences."""
    took: float
    """How many seconds looking took."""
    identity: tuple[int, int] = (0, 0)
    """The file system and the inode of its directory: another, if another spool is at the path."""
    adopted: bool = True
    owners_shown: bool = True
    """Whether the file system is one of those for which the kernel shows who holds locks."""
    queues: tuple[QueueLook, ...] = ()
    held: tuple[Entry, ...] = ()
    """The longest held first; of very many, these are not all."""
    aside: tuple[Entry, ...] = ()
    """The same."""
    troubles: tuple[tuple[str, str], ...] = ()
    """What could not be looked at: a directory, and why."""


@final
class Listing(msgspec.Struct, frozen=True):
    """What is in one queue: the first entries by name, available and waiting; what is checked out, or in quarantine."""

    queue: str
    entries: tuple[Entry, ...] = ()
    more: int = 0
    """How many available entries are not in the list."""


@final
class Details(msgspec.Struct, frozen=True):
    """Everything about one entry, for a person."""

    queue: str
    name: str
    state: State
    facts: tuple[tuple[str, str], ...]
    metadata: str
