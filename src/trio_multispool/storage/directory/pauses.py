"""Pauses of queues: `.paused/QUEUE` is there for as long as readers are to take nothing from it.

The file alone pauses the queue. What is in it says until when, and why; one that cannot be read, such as one that a
crash has left half written, pauses it without an end. So it can be written in place, and no reader misses it. It is
synced: a pause must survive what made somebody ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_multispool.errors import NameTaken
from trio_multispool.model.pauses import UNREADABLE, decode_pause
from trio_multispool.storage.directory.disk import files
from trio_multispool.storage.directory.disk.layout import PAUSES

if TYPE_CHECKING:
    from trio_multispool.model.pauses import Pause
    from trio_multispool.storage.directory.context import Context


def pause(context: Context, queue: str, wanted: Pause) -> None:
    """Pause a queue, or pause it anew."""
    layout = context.layout
    with files.wanting_directory(layout, PAUSES):
        _ = layout.ensure_directory(PAUSES)
        while True:
            files.unlink_if_there(layout, PAUSES, queue)
            try:
                with files.begin_new(layout, PAUSES, queue, wanted.encode()) as file:
                    for failure in context.syncs.together((file, PAUSES, "")).values():
                        raise failure
                    file.close()
            except NameTaken:  # by another who does the same
                continue
            return


def resume(context: Context, queue: str) -> None:
    """End the pause of a queue, if there is one."""
    layout = context.layout
    if layout.is_there(PAUSES) and layout.optional_fd(PAUSES) is not None:
        files.unlink_if_there(layout, PAUSES, queue)
        for failure in context.syncs.together((PAUSES,)).values():
            raise failure


def pauses(context: Context) -> dict[str, Pause]:
    """Return the pauses by queue, also those whose time is over."""
    layout = context.layout
    if not layout.is_there(PAUSES) or layout.optional_fd(PAUSES) is None:
        return {}
    found: dict[str, Pause] = {}
    for queue in layout.entry_names(PAUSES):
        try:
            found[queue] = decode_pause(files.read_beside(layout, PAUSES, queue))
        except FileNotFoundError:
            continue
        except files.UNREADABLE:
            found[queue] = UNREADABLE
    return found
