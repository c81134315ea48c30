"""Time stamps of files: what they say, and how they are set."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from trio_multispool.storage.directory.disk.layout import REGISTRY

if TYPE_CHECKING:
    import os

    from trio_multispool.storage.directory.context import Context


def written_at(found: os.stat_result) -> float:
    """Return when a file was last written, in seconds since 1970, as far as can be known.

    If the entry waits, or has waited, the modification time is when it is due. No file was written after its last
    change.
    """
    return min(found.st_mtime, found.st_ctime)


def available_since(found: os.stat_result, *, waits: bool) -> float:
    """Return since when an entry is to be had, in seconds since 1970: when it was last put there, or became due."""
    return found.st_mtime if waits else found.st_ctime


def renew(context: Context, directory: str, name: str) -> None:
    """Date an entry anew that is about to be moved out of a directory, in a spool that is not adopted.

    Programs that take no locks may be at work there. The original dates an entry and its reservation at each move, and
    its monitor takes that for the time of the move. A hint: where it fails, the entry is moved all the same.
    """
    for where in (REGISTRY, directory):
        with contextlib.suppress(OSError):
            context.layout.calls.touch(name, context.layout.fds[where])


def end_waiting(context: Context, directory: str, name: str) -> None:
    """Date an entry now, under its lock, if its date is still to come: it was taken early, and waits no longer.

    A hint, as above: an age could not be told by such a date.
    """
    layout = context.layout
    with contextlib.suppress(OSError):
        fd = layout.fds[directory]
        if layout.calls.stat(name, fd).st_mtime > context.now():
            layout.calls.touch(name, fd)
