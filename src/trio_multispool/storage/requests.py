"""What goes into a store and comes out of it, as values: what is enqueued, how a claim is settled, what was found."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import BinaryIO, Generic, TypeAlias, final

import msgspec

from trio_multispool.model.lifecycle import Place
from trio_multispool.model.notes import Progress
from trio_multispool.model.policies import Durability
from trio_multispool.model.types import T

Content: TypeAlias = bytes | Callable[[BinaryIO], None]
"""What is to be in a file: the bytes, or a function that writes them. What that raises is passed on."""


@final
class Recovered(msgspec.Struct, frozen=True):
    """One thing that recovery did: `name` was put back in `queue`, or collected if `queue` is `None`."""

    name: str
    queue: str | None


@final
class NotDue(msgspec.Struct, frozen=True):
    """What `Storage.claim` answers of an entry that waits for longer than was asked."""

    due_at: float
    """In seconds since 1970."""


@final
class Arrivals(msgspec.Struct, frozen=True):
    """What has come to wait for a queue since it was last asked."""

    names: frozenset[str] = frozenset()
    all: bool = False
    """Whether it may be anything: then all that waits is to be looked at."""
    told: bool = True
    """Whether the store can tell. If not, `names` says nothing."""


@final
class Item(msgspec.Struct, frozen=True):
    """One entry as an onlooker sees it."""

    name: str
    place: Place
    size: int
    """Of the metadata, in bytes."""
    modified_at: datetime.datetime
    """When the metadata was last written, in UTC. (Of what waits, or has waited: not after it was last moved.)"""
    owner: int | None
    """The process that has it checked out, as far as the kernel shows it."""
    progress: Progress | None = None
    """How far its owner says that it is."""
    due_at: datetime.datetime | None = None
    """Of an entry that waits: when it will be available, in UTC."""


@final
class NewEntry(msgspec.Struct, Generic[T], frozen=True):
    """An entry to be made by `Storage.enqueue`, with its arguments."""

    reservation: T
    queue: str
    metadata: bytes
    content: Content
    """Of its data."""
    durability: Durability | None
    before_commit: Callable[[], None]
    carrier: Mapping[str, str] | None = None
    due_at: float | None = None
    """If the entry is to wait: until when, in seconds since 1970."""
    remember: float | None = None
    """If its name is to be remembered once it has gone: for how long, in seconds."""
    alone: bool = False
    """Whether nobody else should have to wait for its data to be synced."""


Notes: TypeAlias = Mapping[str, bytes | None]

"""New values of some keys of an entry's notes, in JSON; `None`: the key goes."""


@final
class Saving(msgspec.Struct, Generic[T], frozen=True):
    """A claim to be settled by `Storage.save`, with its arguments."""

    claim: T
    queue: str
    metadata: bytes | None
    durability: Durability | None
    before_commit: Callable[[], None]
    due_at: float | None = None
    """If the entry is to wait there: until when, in seconds since 1970."""
    notes: Notes | None = None
    """What changes in the notes on the entry, as durably as the save itself."""


@final
class Removing(msgspec.Struct, Generic[T], frozen=True):
    """A claim to be settled by `Storage.remove`, with its arguments."""

    claim: T
    durability: Durability | None
    before_commit: Callable[[], None]


@final
class Releasing(msgspec.Struct, Generic[T], frozen=True):
    """A claim to be settled by `Storage.release`."""

    claim: T
    notes: Notes | None = None
    """What changes in the notes on the entry, if that can be had; a release is never refused."""


Settlement: TypeAlias = Saving[T] | Removing[T] | Releasing[T]

"""How one of several claims is to be settled."""


@final
class Stat(msgspec.Struct, frozen=True):
    """The size and age of an entry's metadata, or of its data."""

    size: int
    """In bytes, as stored."""

    modified_at: datetime.datetime
    """When it was last written, as an aware datetime in UTC. Moving an entry between queues does not change it."""
