"""What one look of `top` at a spool sees: values, with times as seconds since 1970."""

from __future__ import annotations

from typing import final

import msgspec

from trio_multispool.model.lifecycle import State


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
    """Of the names of all that is available or checked out."""
    oldest_at: float | None = None
    """When the metadata of the oldest available entry was written."""
    oldest_of_all: bool = True
    """Whether all entries were looked at to find the oldest, or, of a long queue, the first by name."""

    @property
    def total(self) -> int:
        """How many entries are available or checked out."""
        return self.available + self.held


@final
class Held(msgspec.Struct, frozen=True):
    """A checked-out entry."""

    queue: str
    name: str
    since: float
    """When it was checked out: the time of its file's last rename."""
    owner: int | None
    """The process that has it, as far as the kernel shows it."""
    by: str
    """The same for a person."""
    progress: str = ""
    """How far the owner says that it is."""


@final
class Aside(msgspec.Struct, frozen=True):
    """An entry in quarantine."""

    queue: str
    name: str
    since: float


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
    held: tuple[Held, ...] = ()
    """The longest held first; of very many, these are not all."""
    aside: tuple[Aside, ...] = ()
    """The same."""
    troubles: tuple[tuple[str, str], ...] = ()
    """What could not be looked at: a directory, and why."""


@final
class Listed(msgspec.Struct, frozen=True):
    """An entry in the list of one queue."""

    queue: str
    name: str
    state: State
    size: int
    since: float
    by: str = ""


@final
class Listing(msgspec.Struct, frozen=True):
    """What is in one queue: the first entries by name, available and waiting; what is checked out, or in quarantine."""

    queue: str
    entries: tuple[Listed, ...] = ()
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
