"""Entries that wait: `QUEUE/.waiting/NAME`, each due at the modification time of its file.

The directory is made when it is first needed. It is made durable before anything is committed to it: an entry whose
directory power loss takes would be gone with it.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from trio_multispool.errors import NotAdopted
from trio_multispool.storage.directory.disk.layout import waiting_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.syncs.plan import SyncPlan


def where_to_wait(context: Context, queue: str, plan: SyncPlan) -> str:
    """Return the directory in which what is to wait for a queue goes, which exists then, also after power loss.

    Raises `NotAdopted` where programs may be at work that know of no such directory: what waits there would be lost to
    them.
    """
    if not context.is_adopted():
        raise NotAdopted(context.layout.path, "entries that wait")
    directory = waiting_of(queue)
    if context.layout.ensure_directory(directory):
        context.kept.discard(directory)
    if plan.before and directory not in context.kept:  # another process may have made it, and died before its sync
        context.syncs.directory(queue)
        context.kept.add(directory)
    return directory


def waiting(layout: Layout, queue: str) -> Iterator[tuple[float, str]]:
    """Yield all that waits for a queue, in no order: when it is due, in seconds since 1970, and its name."""
    directory = waiting_of(queue)
    if not layout.is_there(directory):
        return
    for name in layout.each_entry_name(directory):
        due = due_at(layout, queue, name)
        if due is not None:
            yield due, name


def due_at(layout: Layout, queue: str, name: str) -> float | None:
    """Return when an entry that waits for a queue is due, in seconds since 1970; `None` if it does not wait there."""
    directory = waiting_of(queue)
    with layout.doing("look at", directory, name):
        try:
            found = layout.calls.stat(name, layout.fd(directory))
        except FileNotFoundError:
            return None
    return found.st_mtime if stat.S_ISREG(found.st_mode) else None
