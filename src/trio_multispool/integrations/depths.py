"""Counts the entries of each queue and state on demand; for gauges, in a thread that may block."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, final

import msgspec

from trio_multispool.errors import SpoolError
from trio_multispool.session.stores import look_at_store

if TYPE_CHECKING:
    from trio_multispool.model.types import StrPath


@final
class Depth(msgspec.Struct, frozen=True, order=True):
    """The entries of one queue in one state."""

    spool: str
    queue: str
    state: str
    """`available`, `checked out` or `quarantined`."""
    entries: int


def depths(path: StrPath) -> list[Depth] | None:
    """Count the entries of a spool by listing it; `None` if it cannot be read. Recovers nothing, and writes nothing.

    It costs as much as a listing: some milliseconds for ten thousand entries.
    """
    try:
        with contextlib.closing(look_at_store(path)) as storage:
            return sorted(
                Depth(storage.location, place.queue, place.state.value, entries)
                for place, entries in storage.depths().items()
            )
    except SpoolError:
        return None
