"""Requests to cancel entries in hand: `.cancel/NAME`, made by anybody, and unlinked by who settles the entry.

A request has a file of its own, because the owner of an entry rewrites its notes as a whole. It is not synced: what it
asks for is asked of an owner that is alive, and power loss leaves none. A request that outlives its owner is for the
next one. Its directory is watched by every process that has entries in hand, and so it has little else in it: notes,
which are written for each attempt, would wake them all.

A request tells which work it is about: on which entry, by the time at which its name was reserved, and in which queue.
So one that was left behind means nothing to a later entry of the same name, and recovery collects it; and one that the
owner's save has overtaken means nothing in the next queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_multispool.errors import NameTaken, NotAdopted
from trio_multispool.model.cancellation import StoredRequest, decode_request
from trio_multispool.storage.directory.disk.files import (
    UNREADABLE,
    read_beside,
    unlink_if_there,
    wanting_directory,
    write_new,
)
from trio_multispool.storage.directory.disk.layout import CANCELLATIONS, REGISTRY

if TYPE_CHECKING:
    from trio_multispool.model.cancellation import CancelRequest
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.layout import Layout


def ask_to_cancel(context: Context, queue: str, name: str, request: CancelRequest) -> None:
    """Ask the owner of an entry to cancel the work on it. Does nothing if that was asked for before."""
    if not context.is_adopted():
        raise NotAdopted(context.layout.path, "requests to cancel what they have in hand")
    layout = context.layout
    if cancellation(context, queue, name) is not None:
        return
    with wanting_directory(layout, CANCELLATIONS):
        if not _is_there(layout):
            _ = layout.ensure_directory(CANCELLATIONS)
        unlink_if_there(layout, CANCELLATIONS, name)  # of an earlier entry, or one that cannot be read
        try:
            stored = StoredRequest(_reserved_at(context, name), queue, request)
            write_new(layout, CANCELLATIONS, name, stored.encode())
        except NameTaken:  # by another who asks for the same
            return


def asked_to_cancel(context: Context) -> list[str]:
    """Return the names for which there is a request, maybe of earlier entries."""
    layout = context.layout
    return layout.entry_names(CANCELLATIONS) if _is_there(layout) else []


def cancellation(context: Context, queue: str, name: str) -> CancelRequest | None:
    """Return the request to cancel work on an entry of a queue; `None` if there is none, or if it cannot be read."""
    layout = context.layout
    try:
        stored = decode_request(read_beside(layout, CANCELLATIONS, name)) if _is_there(layout) else None
    except (FileNotFoundError, *UNREADABLE):
        return None
    if stored is None or (stored.of, stored.queue) != (_reserved_at(context, name), queue):
        return None
    return stored.request


def withdraw(context: Context, name: str) -> None:
    """Unlink a request, if there is one."""
    unlink_if_there(context.layout, CANCELLATIONS, name)


def _is_there(layout: Layout) -> bool:
    return layout.is_there(CANCELLATIONS) and layout.optional_fd(CANCELLATIONS) is not None


def _reserved_at(context: Context, name: str) -> int:
    """Return what tells an entry from others that have, or had, its name: a reservation is never written again."""
    found = context.layout.look_at(REGISTRY, name)
    return 0 if found is None else found.st_mtime_ns
