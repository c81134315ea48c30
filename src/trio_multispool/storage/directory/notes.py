"""Notes on entries: `.notes/NAME`. The entry's owner writes them, always as a whole file; any process may read them.

Notes that change with a save are synced with it, before its commit: then the entry has them wherever it is found. Other
notes are not synced, and no acknowledgement depends on them. The progress that an owner reports belongs to its
check-out. So it is deleted when the claim is settled, and recovery deletes the progress of a dead owner.

Notes that cannot be read count as none. A directory in their place is left: then the entry has no notes.
"""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING, Final

import msgspec

from trio_multispool.errors import NameTaken, NotAdopted, NotARegularFile, SpoolError
from trio_multispool.events import Event, log
from trio_multispool.model.attempts import ATTEMPTS, History
from trio_multispool.model.notes import (
    LARGEST,
    PROGRESS,
    Progress,
    decode_beside,
    decode_key,
    decode_notes,
    encode_notes,
)
from trio_multispool.storage.directory import commits
from trio_multispool.storage.directory.disk.files import (
    UNREADABLE,
    begin_new,
    discard,
    no_directory,
    read_beside,
    unlink_if_there,
    wanting_directory,
    write_new,
)
from trio_multispool.storage.directory.disk.layout import NOTES, NOTES_PREFIX, TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from trio_multispool.storage.directory.claims import DirectoryClaim
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.files import OpenFile
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.syncs.plan import SyncPlan
    from trio_multispool.storage.directory.syncs.together import Need
    from trio_multispool.storage.requests import Notes


_TRACE: Final = "trace"
_KINDS: Final[dict[str, type[object]]] = {_TRACE: dict[str, str], PROGRESS: Progress, ATTEMPTS: History}
"""The keys that this version knows."""

_LARGEST_CARRIER: Final = LARGEST // 8
"""In bytes. With it and the largest history, notes can still be read."""


def read_notes(context: Context, name: str) -> dict[str, msgspec.Raw]:
    """Return the notes on an entry; empty if it has none, or if they cannot be read. Log once what cannot be."""
    notes, fault = notes_and_fault(context.layout, name)
    if fault is not None:
        context.say_unreadable(NOTES, name, "its notes cannot be read, and count as none", fault)
    return notes


def notes_and_fault(layout: Layout, name: str) -> tuple[dict[str, msgspec.Raw], str | None]:
    """Return the notes on an entry, and what of them cannot be read. A key that cannot be stays until it is changed."""
    try:
        notes = decode_notes(read_beside(layout, NOTES, name))
    except FileNotFoundError:
        return {}, None
    except UNREADABLE as error:
        return {}, str(no_directory(layout, NOTES) or error)
    faults: list[str] = []
    for key in _KINDS.keys() & notes.keys():
        try:
            _ = decode_beside(notes[key], _KINDS[key])
        except ValueError as error:
            faults.append(f"{key}: {error}")
    return notes, "; ".join(sorted(faults)) or None


def annotate(
    context: Context,
    claim: DirectoryClaim,
    key: str,
    value: bytes | None,
    found: dict[str, msgspec.Raw] | None = None,
) -> None:
    """Set a key of the notes on an entry that is checked out, or delete it; as `Storage.annotate` does.

    Raises `OwnershipLost`, and `NotARegularFile` if a directory is in the place of the notes, or no directory in that
    of `.notes`.
    """
    claim.check_owned()
    if key == PROGRESS and value is not None:
        claim.told = True  # before the write: even a write that failed in its last step is then deleted
    _set(context, claim.name, {key: value}, found)
    if key == PROGRESS and value is None:
        claim.told = False


def leave(context: Context, claim: DirectoryClaim, notes: Notes | None) -> None:
    """Change the notes on an entry that its owner is about to give up; a failure is logged.

    Delete the progress, if the owner reported any.
    """
    changes = _at_the_end(claim, notes)
    if changes:
        with context.tidying(claim.name):
            claim.check_owned()
            _set(context, claim.name, changes)


@contextlib.contextmanager
def left(context: Context, claim: DirectoryClaim, notes: Notes | None, plan: SyncPlan) -> Generator[tuple[Need, ...]]:
    """Change the notes as `leave` does, for a save; yield what to sync before its commit. Raises a `SpoolError`.

    If only the progress is deleted, a failure is logged, and nothing needs a sync. The same holds if no notes are left:
    if power loss brings them back, they are merely old. A save goes on without notes if what `annotate` tells of is in
    their place.
    """
    file = None
    if not notes:
        leave(context, claim, None)
    else:
        claim.check_owned()
        try:
            file = _begin(context, claim.name, _at_the_end(claim, notes))
        except NotARegularFile as error:
            context.say_unreadable(NOTES, claim.name, "its notes cannot be written", str(error))
    if file is None:
        yield ()
        return
    with contextlib.closing(file):
        context.keep(NOTES, plan)
        yield file, NOTES


def forget_progress_of_the_dead(context: Context, name: str) -> None:
    """Delete the progress that a dead owner reported; under the lock."""
    with context.tidying(name):
        _set(context, name, {PROGRESS: None})


def _at_the_end(claim: DirectoryClaim, notes: Notes | None) -> Notes:
    return {**(notes or {}), PROGRESS: None} if claim.told else notes or {}


def _set(context: Context, name: str, changes: Notes, found: dict[str, msgspec.Raw] | None = None) -> None:
    file = _begin(context, name, changes, found)
    if file is not None:
        file.close()


def _begin(context: Context, name: str, changes: Notes, found: dict[str, msgspec.Raw] | None = None) -> OpenFile | None:
    """Change some keys; return the new file, open, if one was written."""
    before = read_notes(context, name) if found is None else found
    after = {**before, **{key: None if value is None else msgspec.Raw(value) for key, value in changes.items()}}
    notes = {key: value for key, value in after.items() if value is not None}
    if notes == before:
        return None
    if notes:
        content = encode_notes(notes)
        if len(content) > LARGEST:  # with what others wrote there; nobody could read it
            content = encode_notes({key: notes[key] for key in changes if key in notes})
        return _write(context, name, content, any_before=bool(before))
    unlink_if_there(context.layout, NOTES, name)
    return None


def _write(context: Context, name: str, content: bytes, *, any_before: bool) -> OpenFile:
    """Put a new file in the place of the notes, which may not be there; whatever lies there may not be readable."""
    layout, new = context.layout, NOTES_PREFIX + name
    if NOTES not in layout.fds:
        with wanting_directory(layout, NOTES):
            if layout.optional_fd(NOTES) is None and layout.ensure_directory(NOTES):
                layout.kept.discard(layout.pinned(NOTES))
    unlink_if_there(layout, TEMPORARY, new)  # left by a dead owner of this name
    with begin_new(layout, TEMPORARY, new, content) as file:
        if not any_before:
            with contextlib.suppress(NameTaken):  # by what cannot be read
                if commits.move(layout, new, TEMPORARY, NOTES, name):
                    return file
        found = layout.look_at(NOTES, name)
        if found is not None and stat.S_ISDIR(found.st_mode):  # it could be exchanged, and then not be unlinked
            raise NotARegularFile(layout.full(NOTES, name))
        exchanged = commits.exchange(layout, (TEMPORARY, new), NOTES, name)
        if not exchanged:
            _ = commits.move(layout, new, TEMPORARY, NOTES, name)
    if exchanged:
        with context.tidying(name):
            unlink_if_there(layout, TEMPORARY, new)
    return file


def begin_noted(
    context: Context, name: str, notes: Mapping[str, bytes], carrier: Mapping[str, str] | None, plan: SyncPlan
) -> OpenFile:
    """Write the first notes on a new entry, whose lock is held, with its carrier; return the file, open."""
    if not context.adopted:
        raise NotAdopted(context.layout.path, "notes on entries")
    layout, values = context.layout, {key: msgspec.Raw(value) for key, value in notes.items()}
    if carrier:
        values[_TRACE] = msgspec.Raw(msgspec.json.encode(dict(carrier)))
    with wanting_directory(layout, NOTES):
        if layout.optional_fd(NOTES) is None and layout.ensure_directory(NOTES):
            layout.kept.discard(layout.pinned(NOTES))
        unlink_if_there(layout, NOTES, name)  # left by a failed enqueue under this reservation
        context.keep(NOTES, plan)
        return begin_new(layout, NOTES, name, encode_notes(values))


def send_along(context: Context, name: str, carrier: Mapping[str, str]) -> None:
    """Write the carrier of a new entry, whose lock is held.

    The entry is made even if this fails: then the failure is logged, and the entry has no carrier.
    """
    if not context.adopted:
        return
    layout, content = context.layout, msgspec.json.encode({_TRACE: dict(carrier)})
    failure: SpoolError | str | None = None
    if len(content) > _LARGEST_CARRIER:
        failure = f"it is larger than {_LARGEST_CARRIER} bytes"
    else:
        try:
            with wanting_directory(layout, NOTES):
                if layout.optional_fd(NOTES) is None:
                    _ = layout.ensure_directory(NOTES)
                unlink_if_there(layout, NOTES, name)  # left by a failed enqueue under this reservation
                write_new(layout, NOTES, name, content)
        except SpoolError as error:
            failure = error
    if failure is not None:
        message = "the trace of entry %(entry)s of spool %(spool)s ends here: %(error)s"
        log(context.log.warning, Event.NOT_CARRIED, layout.path, message, entry=name, error=failure)


def leave_behind(context: Context, name: str, carrier: Mapping[str, str] | None, *, because: BaseException) -> None:
    """Unlink the carrier of an entry that was not made, while `because` is being raised."""
    if carrier and context.adopted:
        discard(context.layout, NOTES, name, because=because)


def carrier_of(context: Context, name: str) -> dict[str, str]:
    """Return the carrier of an entry; empty if it has none, or if it cannot be read."""
    try:
        return decode_key(read_notes(context, name), _TRACE, dict[str, str]) or {}
    except SpoolError:
        return {}
