"""The values that go into a store and come out of it: new entries, settlements of claims, and answers."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final, Generic, TypeAlias, final

import msgspec

from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.notes import Progress
from trio_multispool.model.policies import Durability
from trio_multispool.model.times import is_possible
from trio_multispool.model.types import T
from trio_multispool.storage.source import Claiming

Content: TypeAlias = bytes | Callable[[BinaryIO], None]
"""The content of a file: the bytes, or a function that writes them. What the function raises is passed on."""


@final
class Recovered(msgspec.Struct, frozen=True):
    """One thing that recovery did: it put `name` back in `queue`, or collected it if `queue` is `None`."""

    name: str
    queue: str | None


@final
class NotDue(msgspec.Struct, frozen=True):
    """The answer of `Storage.claim` if the entry is due later than the caller asked for."""

    due_at: float
    """In seconds since 1970."""


@final
class Owner(msgspec.Struct, frozen=True, order=True):
    """A process that has an entry checked out."""

    host: str
    """The name of its host."""
    pid: int
    """Its number there."""


@final
class Item(msgspec.Struct, frozen=True):
    """One entry, as a process that only looks sees it."""

    name: str
    place: Place
    size: int
    """Of the metadata, in bytes."""
    modified_at: datetime.datetime
    """When the metadata was last written, in UTC. (If the entry waits, or has waited: not after its last move.)"""
    owner: Owner | None
    """The process that has it checked out, if the store can tell."""
    progress: Progress | None = None
    """The progress that its owner reported."""
    due_at: datetime.datetime | None = None
    """When it will be available, in UTC, if it waits."""
    stamp: float | None = None
    """The modification time of its file, in seconds since 1970, if it has one. Any program may have set it."""

    moved_at: float | None = None
    """When it came to its place, or was written there since, in seconds since 1970, if the store can tell."""
    data_size: int | None = None
    """Of the data, in bytes, if the store knows that without looking."""

    def has_possible_time(self, now: float) -> bool:
        """Tell whether its file can have been written when it says, so that its age means something."""
        return self.stamp is None or (is_possible(self.stamp, now) and is_possible(self.modified_at.timestamp(), now))


LOOKED_AT: Final = 1000
"""Of the entries in one place, so many are looked at one by one for a `Standing`, the first by name."""


@final
class Standing(msgspec.Struct):
    """How a queue stands, for metrics."""

    queue: str
    entries: dict[State, int] = {}
    """How many there are, by state."""
    oldest_since: float | None = None
    """Since when the oldest entry is to be had: available, or waiting and due. In seconds since 1970; `None`: there is
    none. In a long queue, the oldest of the first entries by name, which readers take next."""
    abandoned: int | None = None
    """How many check-outs have an owner who is dead, among those that were looked at. `None`: nobody can say."""

    def see(self, since: float | None, now: float) -> None:
        """Take note of an entry that is to be had since then, or is not yet."""
        if since is not None and since <= now:
            self.oldest_since = since if self.oldest_since is None else min(self.oldest_since, since)


@final
class Advice(msgspec.Struct, frozen=True):
    """What a person who looks after a store should know of it: no entry has come to harm, but that may come."""

    what: str
    """What is so, in a sentence without its full stop."""
    cure: str
    """What to do about it, likewise."""


@final
class NewEntry(msgspec.Struct, Generic[T], frozen=True):
    """A new entry. It is made with its data, all or nothing."""

    reservation: T
    queue: str
    metadata: bytes
    content: Content
    """The content of its data."""
    durability: Durability | None
    before_commit: Callable[[], None]
    carrier: Mapping[str, str] | None = None
    """Kept with the entry while it exists, if that is cheap. It is a hint."""
    due_at: float | None = None
    """If the entry waits: until when, in seconds since 1970."""
    remember: float | None = None
    """For how long to remember its name after its removal, in seconds; `None`: not at all."""
    alone: bool = False
    """Whether to sync its data separately, so that no other operation waits for that."""
    notes: Mapping[str, bytes] | None = None
    """What is noted on it from the beginning, each value in JSON; as durable as the entry itself."""


Notes: TypeAlias = Mapping[str, bytes | None]
"""New values for some keys of an entry's notes, in JSON; `None` deletes the key."""


class _Settling(msgspec.Struct, kw_only=True):
    """What every way to settle a claim has."""

    then: Claiming[Any] | None = None
    """What to claim when this is done: one entry more."""
    ready: Callable[[], object] | None = None
    """Called before that: frees what the settled entry held, such as its key's slot."""
    withdraws: bool = False
    """Whether to delete the request to cancel the work on the entry: there is one, and it is over."""


@final
class Saving(_Settling, Generic[T]):
    """Settle a claim: move the entry to a queue, with new metadata unless it is `None`."""

    claim: T
    queue: str
    metadata: bytes | None
    durability: Durability | None
    before_commit: Callable[[], None]
    due_at: float | None = None
    """If the entry waits there: until when, in seconds since 1970."""
    notes: Notes | None = None
    """Changes to the notes on the entry, as durable as the save itself."""


@final
class Removing(_Settling, Generic[T]):
    """Settle a claim: delete the entry and its data."""

    claim: T
    durability: Durability | None
    before_commit: Callable[[], None]


@final
class Releasing(_Settling, Generic[T]):
    """Settle a claim: put the entry back where it came from. Never refused and never withdrawn."""

    claim: T
    notes: Notes | None = None
    """Changes to the notes on the entry. If they fail, the release goes on: it is never refused."""


Settlement: TypeAlias = Saving[T] | Removing[T] | Releasing[T]
"""How to settle one of several claims."""


@final
class Stat(msgspec.Struct, frozen=True):
    """The size and age of an entry's metadata, or of its data."""

    size: int
    """In bytes, as stored."""

    modified_at: datetime.datetime
    """When it was last written, as an aware datetime in UTC. Moving an entry between queues does not change it.

    In a spool that is not adopted, each move does, as the original's: there it is the time of the last move.
    """
