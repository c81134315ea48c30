"""What a store hands out: claims of entries, reserved names, slots, and watches."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, final

import msgspec

from trio_multispool.model.attempts import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_multispool.model.lifecycle import State


@final
class Noted(msgspec.Struct):
    """What a store has read of an entry's notes with its check-out, and written."""

    found: dict[str, msgspec.Raw]
    """The notes before."""
    attempt: Mark | None = None
    """The attempt that it has written down, if it was asked to."""


class Claim(Protocol):
    """The right to settle one entry once: the entry is checked out."""

    @property
    def queue(self) -> str:
        """The queue from which it was checked out."""
        ...

    @property
    def name(self) -> str:
        """The entry's name."""
        ...

    @property
    def metadata(self) -> bytes:
        """The metadata as it was read when the entry was checked out."""
        ...

    @property
    def due_at(self) -> float | None:
        """Until when it waited, in seconds since 1970, if it waited when it was checked out."""
        ...

    @property
    def written_at(self) -> float:
        """When the metadata was last written, in seconds since 1970, as it was known before the check-out."""
        ...

    @property
    def available_since(self) -> float | None:
        """When it came into its queue, or became due there if that was later, in seconds since 1970.

        `None`: nobody can say. A store may count an entry that was released, or put back by recovery, as one that came
        in then.
        """
        ...

    @property
    def noted(self) -> Noted | None:
        """What the store has read and written of the notes with the check-out; `None`: nothing."""
        ...

    @property
    def state(self) -> State:
        """`CHECKED_OUT` until the store has settled it. The store itself changes it, at the commit."""
        ...

    @property
    def held(self) -> bool:
        """Whether the store keeps other owners away from the entry for as long as this claim lives."""
        ...

    def abandon(self) -> None:
        """Let go without settling, like a process that dies. Recovery brings the entry back. Idempotent."""
        ...


class Reservation(Protocol):
    """A name that is held for a new entry."""

    @property
    def name(self) -> str:
        """The reserved name."""
        ...

    @property
    def state(self) -> State:
        """`NOTHING` until the entry is enqueued."""
        ...

    def abandon(self) -> None:
        """Let go of the name without tidying up, like a process that dies. Idempotent."""
        ...


@final
class Slot:
    """A slot, or another lock, that is held until it is released: at the latest when Python collects it."""

    __slots__ = ("__weakref__", "_free")

    def __init__(self, free: Callable[[], None]) -> None:
        """Take over what has just been taken; `free`, which any thread may call, frees it for others."""
        self._free: Callable[[], None] | None = free

    @property
    def held(self) -> bool:
        """Whether it has not been released."""
        return self._free is not None

    def release(self) -> None:
        """Free it for others. Idempotent, in any thread."""
        free, self._free = self._free, None
        if free is not None:
            free()

    def __enter__(self) -> None:
        """Hold it for a block."""

    def __exit__(self, *_raised: object) -> None:
        """Free it."""
        self.release()

    def __del__(self) -> None:
        """Let go; at the end of the interpreter the kernel does."""
        if not sys.is_finalizing():
            self.release()


class Watch(Protocol):
    """Tells which queues may have new entries, or which entries may have moved. A hint: it may tell of too many."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to `drain`."""
        ...

    def add(self, queue: str) -> None:
        """Watch a queue from now on; raises a `SpoolError` if that is impossible. Call it before each listing."""
        ...

    def drain(self) -> Mapping[str, int]:
        """Return how many entries each queue may have got since the last call, without waiting; or what may have moved.

        The name `""` stands for all of them.
        """
        ...

    def close(self) -> None:
        """Stop watching. Idempotent."""
        ...
