"""Reserving a name, and enqueueing under it: an entry is made whole or not at all.

The reservation is a file in `.registry`, made with `O_EXCL` and locked before anything is written. A name that a dead
process reserved, and perhaps half enqueued, is taken over: under the lock it is looked for in every place on disk,
and if it is in none, what the dead one wrote is unlinked first. So a first enqueue that was killed can simply be
tried again.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from trio_multispool.errors import DurabilityUnknown, EntryBusy, NameTaken, SpoolError, StorageFailure
from trio_multispool.model.lifecycle import State, Step, next_state
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import commits, remembered
from trio_multispool.storage.directory.claims import DirectoryReservation
from trio_multispool.storage.directory.commits import CommitUnknown
from trio_multispool.storage.directory.disk.files import begin_new, discard, undo, unlink_if_there
from trio_multispool.storage.directory.disk.layout import (
    DATA,
    DATA_PREFIX,
    NOTES,
    NOTES_PREFIX,
    REGISTRY,
    REMEMBERED,
    TEMPORARY,
    directory_of,
)
from trio_multispool.storage.directory.disk.locks import lock_existing, lock_new
from trio_multispool.storage.directory.notes import leave_behind, send_along
from trio_multispool.storage.directory.syncs.plan import committing
from trio_multispool.storage.directory.syncs.together import run_together
from trio_multispool.storage.directory.waiting import where_to_wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.files import OpenFile
    from trio_multispool.storage.directory.disk.locks import Lock
    from trio_multispool.storage.directory.syncs.plan import SyncPlan
    from trio_multispool.storage.directory.syncs.together import Steps
    from trio_multispool.storage.directory.temporaries import Leftovers
    from trio_multispool.storage.requests import NewEntry

_TRIES: Final = 64
"""How often a reservation that vanished between two looks is tried again. Each time, another process made progress."""


def reserve(context: Context, name: str, *, unique: bool = False) -> DirectoryReservation:
    """Hold a name that no entry has. Raises `NameTaken`, or `EntryBusy` where it is held and in no place yet.

    One that is `unique` is not looked for everywhere if its reservation is new: no entry can have it. (Were there one
    all the same, because its reservation was lost, its data would be in the way of the enqueue.)
    """
    lock = _newborn_or_taken_over(context, name)
    reservation = DirectoryReservation(name, lock)
    if unique and lock.newborn and context.adopted:
        return reservation
    try:
        _look_up(context, reservation)
    except BaseException as error:  # passed on: whatever it was, the name is let go
        # An entry that is there has got its reservation back.
        if lock.newborn and not (isinstance(error, NameTaken) and not error.finished):
            _ = discard(context.layout, REGISTRY, name, because=error)
        lock.release()
        raise
    return reservation


def _look_up(context: Context, reservation: DirectoryReservation) -> None:
    """Look for the name everywhere, and clear what a dead predecessor left under it."""
    _refuse_if_taken(context, reservation.name)
    if remembered.is_remembered(context, reservation.name):
        raise NameTaken(reservation.name, finished=True)
    if context.adopted:
        collect_leftovers(context, reservation.name)
    reservation.looked_up = True


def _refuse_if_taken(context: Context, name: str) -> None:
    """Raise `NameTaken` if the name is in any place, once that is durable: whoever is told so may rely on the entry."""
    for place in context.layout.places_of(name)[:1]:
        if context.syncs.guarding:
            context.syncs.directory(directory_of(place))
        raise NameTaken(name)


def _newborn_or_taken_over(context: Context, name: str) -> Lock:
    layout, collected = context.layout, False
    for _ in range(_TRIES):
        found = lock_new(layout, name)
        if not isinstance(found, Unavailable):
            return found
        if found is Unavailable.GONE:  # a collector was quicker with the lock of our newborn, and will remove it
            collected = True
            continue
        if not context.adopted:
            raise NameTaken(name)
        found = lock_existing(layout, name)
        if not isinstance(found, Unavailable):
            return found
        if found is Unavailable.BUSY:
            _refuse_if_taken(context, name)
            if not collected:
                raise EntryBusy(name)
    raise EntryBusy(name)


def collect_leftovers(context: Context, name: str) -> None:
    """Clear what the dead left under a name that is in no place, once power loss cannot bring its entry back.

    They may have died between an entry's removal and its sync; at which level, nobody knows, so whoever finds data
    syncs. Raises `SyncsRefused` if that cannot be relied on any more, and nothing is cleared.
    """
    layout = context.layout
    if layout.holds(DATA, name):
        for place in layout.places():
            context.syncs.directory(directory_of(place))
    clear_leftovers(context, name)


def clear_leftovers(context: Context, name: str, leftovers: Leftovers | None = None) -> None:
    """Unlink what is kept under a name that is in no place; under its lock. The reservation stays."""
    layout = context.layout
    for prefix in ("", DATA_PREFIX, NOTES_PREFIX):
        if leftovers is None or leftovers.may_have(prefix + name):
            unlink_if_there(layout, TEMPORARY, prefix + name)
    unlink_if_there(layout, DATA, name)
    if leftovers is None or leftovers.may_have_notes():
        unlink_if_there(layout, NOTES, name)


def give_up(context: Context, reservation: DirectoryReservation) -> None:
    """Let an unused name go, with what an enqueue that failed could not remove. Idempotent."""
    if reservation.state is not State.NOTHING or not reservation.lock.held:
        return
    try:
        if not reservation.looked_up:
            _look_up(context, reservation)
        if context.adopted:
            clear_leftovers(context, reservation.name)
        unlink_if_there(context.layout, REGISTRY, reservation.name)
    except NameTaken:  # by an entry that had lost its reservation, and has got it back
        return
    finally:
        reservation.lock.release()


def enqueue_together(
    context: Context, enqueuings: Sequence[NewEntry[DirectoryReservation]]
) -> list[BaseException | None]:
    """Make several entries, sharing their syncs; return what each raised, or `None`."""
    return run_together(context.syncs.together, [_enqueue(context, enqueueing) for enqueueing in enqueuings])


def _enqueue(context: Context, wanted: NewEntry[DirectoryReservation]) -> Steps:
    """Make the entry: data, then metadata, synced, then the rename that commits it; or else keep the reservation."""
    layout, name, queue = context.layout, wanted.reservation.name, wanted.queue
    waits = wanted.due_at is not None
    target = next_state(Step.ENQUEUE_TO_WAIT if waits else Step.ENQUEUE, wanted.reservation.state)
    if not wanted.reservation.lock.held:
        raise EntryBusy(name)
    plan = context.syncs.plan(wanted.durability)
    destination = where_to_wait(context, queue, plan) if waits else queue
    files: list[OpenFile] = []
    unknown = None
    try:
        _write_files(context, wanted, files, plan)
        yield from _on_disk(wanted, files, plan)
        wanted.before_commit()
        try:
            if not commits.move(layout, name, TEMPORARY, destination):
                raise StorageFailure("move", layout.full(TEMPORARY, name), errno.ENOENT)  # undone too
        except CommitUnknown as error:  # the entry may be in its queue: what it consists of must stay
            unknown = error
    except BaseException as error:  # passed on: whatever it was, what was begun is undone
        _undo(context, wanted, files, because=error)
        raise
    if unknown is None:
        wanted.reservation.state = target
    # Unlocked before the last sync: a reader that the rename has woken must not find the entry busy.
    wanted.reservation.lock.release()
    if unknown is not None:
        raise DurabilityUnknown(name, queue, committed=False) from unknown
    if plan.after:
        with committing(name, queue):
            yield (destination,)


def _on_disk(wanted: NewEntry[DirectoryReservation], files: list[OpenFile], plan: SyncPlan) -> Steps:
    """Sync the files of which the data is the first, as the plan says, and close them."""
    if plan.before and wanted.alone:  # by itself, so that whoever shares a sync need not wait for large data
        files[0].sync()
    if plan.before:
        yield (*files[int(wanted.alone) :], DATA, *(() if wanted.remember is None else (REMEMBERED,)))
    for file in files:
        file.close()


def _write_files(
    context: Context, wanted: NewEntry[DirectoryReservation], files: list[OpenFile], plan: SyncPlan
) -> None:
    """Write what the entry consists of: `files` are its data and its metadata then, and perhaps what to remember."""
    if not wanted.reservation.looked_up and not isinstance(wanted.content, bytes):  # which may be had only once
        _look_up(context, wanted.reservation)
    try:
        _write_each(context, wanted, files)
    except StorageFailure as error:
        if error.errno != errno.EEXIST or wanted.reservation.looked_up:
            raise
        while files:  # looking the name up clears all that lies under it
            undo(context.layout, files.pop(), because=error)
        _look_up(context, wanted.reservation)  # raises if it is an entry's
        _write_each(context, wanted, files)
    if wanted.remember is not None:
        files.append(remembered.begin(context, wanted.reservation.name, wanted.remember, plan))
    send_along(context, wanted.reservation.name, wanted.carrier)


def _write_each(context: Context, wanted: NewEntry[DirectoryReservation], files: list[OpenFile]) -> None:
    name = wanted.reservation.name
    files.append(begin_new(context.layout, DATA, name, wanted.content))
    files.append(begin_new(context.layout, TEMPORARY, name, wanted.metadata))
    if wanted.due_at is not None:
        files[-1].set_modified(wanted.due_at)


def _undo(
    context: Context, wanted: NewEntry[DirectoryReservation], files: list[OpenFile], *, because: BaseException
) -> None:
    """Unlink what an enqueue made that failed, also by a call that said that it had: the name may be used again."""
    layout, name = context.layout, wanted.reservation.name
    for file in files:
        undo(layout, file, because=because)
    leave_behind(context, name, wanted.carrier, because=because)
    if context.adopted and _is_free(context, wanted.reservation, because=because):
        for directory in (TEMPORARY, DATA):  # elsewhere, what lies there may be another's, who takes no locks
            _ = discard(layout, directory, name, because=because)


def _is_free(context: Context, reservation: DirectoryReservation, *, because: BaseException) -> bool:
    """Tell whether a reserved name is no entry's, while `because` is on its way out."""
    try:
        if not reservation.looked_up:
            _look_up(context, reservation)
    except NameTaken:
        return False
    except SpoolError as error:
        because.add_note(f"what lies under the name {reservation.name!r} is left to recovery: {error}")
        return False
    return True
