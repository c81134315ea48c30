"""Notes on entries: `.notes/NAME`, written by the entry's owner and replaced at once, read by anybody.

They are not synced: nothing that was acknowledged rests on them. What the owner tells of its progress is of this
check-out, so it goes when the entry does, and recovery wipes what a dead owner told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trio_multispool.errors import OwnershipLost
from trio_multispool.lifecycle import State
from trio_multispool.notes import PROGRESS, decode_notes, encode_notes
from trio_multispool.storage import commits
from trio_multispool.storage.files import discard, read_file, unlink_if_there, write_new
from trio_multispool.storage.layout import NOTES, NOTES_PREFIX, TEMPORARY

if TYPE_CHECKING:
    from trio_multispool.storage.claims import DirectoryClaim
    from trio_multispool.storage.context import Context
    from trio_multispool.storage.layout import Layout


def read_notes(layout: Layout, name: str) -> dict[str, msgspec.Raw]:
    """Return what is noted about an entry; nothing if there are no notes."""
    if layout.optional_fd(NOTES) is None:
        return {}
    try:
        return decode_notes(read_file(layout, NOTES, name))
    except FileNotFoundError:
        return {}


def annotate(context: Context, claim: DirectoryClaim, key: str, value: bytes | None) -> None:
    """Set a key of the notes on an entry that is checked out, or delete it; raises `OwnershipLost`."""
    if claim.state is not State.CHECKED_OUT or not claim.held:
        raise OwnershipLost(claim.queue, claim.name)
    if key == PROGRESS and value is not None:
        claim.told = True  # before it is so: what was written but for its last step is wiped too
    _set(context, claim.name, key, value)
    if key == PROGRESS and value is None:
        claim.told = False


def forget_progress(context: Context, claim: DirectoryClaim) -> None:
    """Wipe what the owner told of its progress, if it told any: the entry is about to be somebody else's."""
    if claim.told:
        with context.tidying(claim.name):
            annotate(context, claim, PROGRESS, None)


def forget_progress_of_the_dead(context: Context, name: str) -> None:
    """Likewise for an owner that died; under the lock."""
    with context.tidying(name):
        _set(context, name, PROGRESS, None)


def _set(context: Context, name: str, key: str, value: bytes | None) -> None:
    layout = context.layout
    notes = read_notes(layout, name)
    if value is None and notes.pop(key, None) is None:
        return
    if value is not None:
        notes[key] = msgspec.Raw(value)
    if notes:
        _write(context, name, encode_notes(notes))
    else:
        unlink_if_there(layout, NOTES, name)


def _write(context: Context, name: str, content: bytes) -> None:
    layout, new = context.layout, NOTES_PREFIX + name

    if layout.optional_fd(NOTES) is None:
        _ = layout.ensure_directory(NOTES)
    unlink_if_there(layout, TEMPORARY, new)  # left by an owner of this name who died
    write_new(layout, TEMPORARY, new, content, sync=False)
    try:
        exchanged = commits.exchange(layout, (TEMPORARY, new), NOTES, name)
        if not exchanged:
            _ = commits.move(layout, new, TEMPORARY, NOTES, name)
    except BaseException as error:  # passed on: whatever it was, what was begun is undone
        _ = discard(layout, TEMPORARY, new, because=error)
        raise
    if exchanged:
        with context.tidying(name):
            unlink_if_there(layout, TEMPORARY, new)
