"""Entries that wait: `QUEUE/.waiting/NAME`, each due at the modification time of its file.

The directory is made when it is first needed. It is synced before anything is committed to it: if power loss took the
directory, its entries would be lost.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from trio_multispool.errors import NotAdopted, TimeNotKept
from trio_multispool.model.times import aware
from trio_multispool.storage.directory.disk.layout import waiting_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.files import OpenFile
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.syncs.plan import SyncPlan


def where_to_wait(context: Context, queue: str, plan: SyncPlan) -> str:
    """Return the directory for entries that wait for a queue. Make it first; sync it as the plan says.

    Raises `NotAdopted` if programs may be at work that do not know this directory: they would not find the entries.
    """
    if not context.is_adopted():
        raise NotAdopted(context.layout.path, "entries that wait")
    directory = waiting_of(queue)
    if context.layout.ensure_directory(directory):
        context.layout.kept.discard(context.layout.pinned(directory))
    context.keep(directory, plan)
    return directory


def set_due(layout: Layout, file: OpenFile, due_at: float) -> None:
    """Date the new metadata of an entry that is to wait, rounded up: nobody gets it early.

    Raises `TimeNotKept` if the file system cannot keep that time.
    """
    if not file.set_modified(due_at):
        raise TimeNotKept(layout.path, aware(due_at))


def waiting(layout: Layout, queue: str) -> Iterator[tuple[float, str]]:
    """Yield each entry that waits for a queue, in no order: when it is due, in seconds since 1970, and its name."""
    directory = waiting_of(queue)
    if not layout.is_there(directory):
        return
    for name in layout.each_entry_name(directory):
        due = due_at(layout, queue, name)
        if due is not None:
            yield due, name


def due_at(layout: Layout, queue: str, name: str) -> float | None:
    """Return when an entry that waits for a queue is due, in seconds since 1970; `None` if it does not wait there."""
    found = layout.look_at(waiting_of(queue), name)
    return found.st_mtime if found is not None and stat.S_ISREG(found.st_mode) else None
