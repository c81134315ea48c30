"""Reserving a name and enqueueing under it: an entry is made whole or not at all.

The reservation is a file in `.registry`, made with `O_EXCL` and locked before anything is written. If a dead process
reserved the name, and perhaps enqueued half of an entry, the name is taken over: under the lock, every place on disk is
searched for it. If it is in no place, the files that the dead process wrote are unlinked first. So an enqueue that was
killed can simply be tried again.
"""

from __future__ import annotations

import errno
import functools
from typing import TYPE_CHECKING, Final

from trio_multispool.errors import (
    AccessDenied,
    DurabilityUnknown,
    EntryBusy,
    NameTaken,
    NotARegularFile,
    SpoolError,
    StorageFailure,
)
from trio_multispool.model.lifecycle import State, Step, next_state
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import commits, remembered
from trio_multispool.storage.directory.claims import DirectoryReservation
from trio_multispool.storage.directory.disk.files import begin_new, discard, unlink_if_there
from trio_multispool.storage.directory.disk.layout import (
    DATA,
    NOTES,
    OWNERS_PREFIXES,
    REGISTRY,
    REMEMBERED,
    TEMPORARY,
    directory_of,
)
from trio_multispool.storage.directory.disk.locks import NEW_LOCK, lock_file, lock_new, lock_to_enqueue
from trio_multispool.storage.directory.notes import begin_noted, leave_behind, send_along
from trio_multispool.storage.directory.syncs.plan import committing
from trio_multispool.storage.directory.syncs.together import run_together
from trio_multispool.storage.directory.waiting import set_due, where_to_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.files import OpenFile
    from trio_multispool.storage.directory.disk.locks import Lock
    from trio_multispool.storage.directory.syncs.plan import SyncPlan
    from trio_multispool.storage.directory.syncs.together import Steps
    from trio_multispool.storage.directory.temporaries import Leftovers
    from trio_multispool.storage.requests import NewEntry

_TRIES: Final = 64
"""How often to try again if a reservation vanished between two looks. Each time, another process made progress."""


def reserve(context: Context, name: str, *, unique: bool = False) -> DirectoryReservation:
    """Hold a name that no entry has. Raises `NameTaken`, or `EntryBusy` if another owner holds it without an entry.

    With `unique` and a new reservation, no place is searched: no entry can have the name. (If an entry has it all the
    same, because its reservation was lost, its data is in the way of the enqueue.)
    """
    found = lock_file(context.layout, name, NEW_LOCK)
    lock = _newborn_or_taken_over(context, name, found) if isinstance(found, Unavailable) else found
    reservation = DirectoryReservation(name, lock)
    if unique and lock.newborn and context.adopted:
        return reservation
    try:
        _look_up_if_possible(context, reservation)
        if not reservation.looked_up:
            _refuse_if_remembered(context, name)
    except BaseException as error:  # passed on: whatever it was, the name is given back
        # If an entry is there, this call has given it its reservation back.
        if lock.newborn and not (isinstance(error, NameTaken) and not error.finished):
            discard(context.layout, REGISTRY, name, because=error)
        lock.release()
        raise
    return reservation


def _look_up(context: Context, reservation: DirectoryReservation) -> None:
    """Search every place for the name, and clear what a dead process left under it."""
    _refuse_if_taken(context, reservation.name)
    _refuse_if_remembered(context, reservation.name)
    if context.adopted:
        collect_leftovers(context, reservation.name)
    reservation.looked_up = True


def _look_up_if_possible(context: Context, reservation: DirectoryReservation) -> None:
    """Look a name up; but where a queue cannot be read, a new reservation alone keeps the name, as if it were unique.

    So a queue that this process may not read stops no other. A name that is not unique may be remembered: `reserve`
    asks the memory once more, and raises if it cannot be read.
    """
    try:
        _look_up(context, reservation)
    except AccessDenied:
        if not (reservation.lock.newborn and context.adopted):
            raise


def _refuse_if_taken(context: Context, name: str) -> None:
    """Raise `NameTaken` if the name is in any place. Sync that first: the caller may rely on the entry."""
    place = context.layout.place_of(name)
    if place is not None:
        if context.syncs.guarding:
            context.syncs.directory(directory_of(place))
        raise NameTaken(name)


def _refuse_if_remembered(context: Context, name: str, *, forget: bool = True) -> None:
    if remembered.is_remembered(context, name, forget=forget):
        raise NameTaken(name, finished=True)


def _newborn_or_taken_over(context: Context, name: str, found: Lock | Unavailable) -> Lock:
    """Hold a name that could not be had at once, as was found."""
    layout, collected = context.layout, False
    for _ in range(_TRIES):
        if not isinstance(found, Unavailable):
            return found
        if found is Unavailable.GONE:  # a collector locked our new reservation first, and will remove it
            collected = True
        else:
            if not context.adopted:
                raise NameTaken(name)
            found = lock_to_enqueue(layout, name)
            if not isinstance(found, Unavailable):
                return found
            if found is Unavailable.BUSY:
                _refuse_if_taken(context, name)
                _refuse_if_remembered(context, name, forget=False)  # its entry was removed, and is being cleared away
                if not collected:
                    raise EntryBusy(name)
        found = lock_new(layout, name)
    raise EntryBusy(name)


def collect_leftovers(context: Context, name: str) -> None:
    """Clear what dead processes left under a name that is in no place. First make sure that its entry cannot come back.

    A process may have died between the removal of the entry and its sync, and its level of durability is unknown. So if
    there is data, all places are synced. Raises `SyncsRefused`, and clears nothing, if syncs are not reliable any more.
    """
    layout = context.layout
    if layout.holds(DATA, name):
        for place in layout.places():
            context.syncs.directory(directory_of(place))
    clear_leftovers(context, name)


def clear_leftovers(context: Context, name: str, leftovers: Leftovers | None = None) -> None:
    """Unlink all files under a name that is in no place, except the reservation; under its lock.

    If the directory of the notes cannot be used, the notes are left, and all else goes on.
    """
    layout = context.layout
    listed, has_notes = (None, True) if leftovers is None else leftovers.found()
    for prefix in OWNERS_PREFIXES:
        if listed is None or prefix + name in listed:
            unlink_if_there(layout, TEMPORARY, prefix + name)
    unlink_if_there(layout, DATA, name)
    try:
        if has_notes:
            unlink_if_there(layout, NOTES, name)
    except (NotARegularFile, AccessDenied, StorageFailure) as error:
        if layout.is_open(NOTES, {}, is_doubtful=True):  # then it is about the notes of this entry
            raise
        context.say_unreadable(NOTES, name, "its notes, if it has any, are left", str(error))


def give_up(context: Context, reservation: DirectoryReservation) -> None:
    """Give an unused name back, and unlink what a failed enqueue could not remove. Idempotent."""
    if reservation.state is not State.NOTHING or not reservation.lock.held:
        return
    try:
        if not reservation.looked_up:
            _look_up_if_possible(context, reservation)
        if context.adopted and reservation.looked_up:
            clear_leftovers(context, reservation.name)
        unlink_if_there(context.layout, REGISTRY, reservation.name)
    except NameTaken:  # by an entry that had lost its reservation, and has it again
        return
    finally:
        reservation.lock.release()


def enqueue_together(
    context: Context, enqueuings: Sequence[NewEntry[DirectoryReservation]]
) -> list[BaseException | None]:
    """Make several entries with shared syncs; return what each raised, or `None`."""
    check_named = functools.cache(context.layout.check_named)  # once a batch
    return run_together(context.syncs.together, [_enqueue(context, each, check_named) for each in enqueuings])


def _enqueue(context: Context, wanted: NewEntry[DirectoryReservation], check_named: Callable[[], None]) -> Steps:
    """Make the entry: write data and metadata, sync, then commit by the rename. On failure keep the reservation."""
    layout, name, queue = context.layout, wanted.reservation.name, wanted.queue
    waits = wanted.due_at is not None
    target = next_state(Step.ENQUEUE_TO_WAIT if waits else Step.ENQUEUE, wanted.reservation.state)
    if wanted.reservation.lock.fd < 0:
        raise EntryBusy(name)
    plan = context.syncs.plan(wanted.durability)
    destination = where_to_wait(context, queue, plan) if waits else queue
    files: list[OpenFile] = []
    unknown = None
    try:
        _write_files(context, wanted, files, plan)
        if plan.before:
            yield from _synced(wanted, files)
        for file in files:
            file.close()
        check_named()
        wanted.before_commit()
        try:
            if not commits.move(layout, name, TEMPORARY, destination):
                raise StorageFailure("move", layout.full(TEMPORARY, name), errno.ENOENT)  # undone too
        except commits.CommitUnknown as error:  # the entry may be in its queue: its files must stay
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


def _synced(wanted: NewEntry[DirectoryReservation], files: list[OpenFile]) -> Steps:
    """Have the files synced; the data is the first."""
    if wanted.alone:  # separately, so that no shared sync waits for large data
        files[0].sync()
    beside = () if wanted.remember is None else (REMEMBERED,)
    if wanted.notes:
        beside = (*beside, NOTES)
    yield (*files[int(wanted.alone) :], DATA, *beside)


def _write_files(
    context: Context, wanted: NewEntry[DirectoryReservation], files: list[OpenFile], plan: SyncPlan
) -> None:
    """Write the files of the entry into `files`: its data, its metadata, and its file in `.keys` if it has one."""
    reservation, is_whole = wanted.reservation, isinstance(wanted.content, bytes)  # else it is usable perhaps only once
    if (
        not is_whole
        and not reservation.looked_up
        and any(context.layout.holds(each, reservation.name) for each in (DATA, TEMPORARY))
    ):
        _look_up_if_possible(context, reservation)
    try:
        _write_each(context, wanted, files)
    except StorageFailure as error:
        if error.errno != errno.EEXIST or wanted.reservation.looked_up:
            raise
        while files:  # the search for the name clears all that lies under it
            files.pop().undo(because=error)
        _look_up(context, wanted.reservation)  # raises if an entry has it
        _write_each(context, wanted, files)
    if wanted.remember is not None:
        files.append(remembered.begin(context, wanted.reservation.name, wanted.remember, plan))
    if wanted.notes:
        files.append(begin_noted(context, wanted.reservation.name, wanted.notes, wanted.carrier, plan))
    elif wanted.carrier:
        send_along(context, wanted.reservation.name, wanted.carrier)


def _write_each(context: Context, wanted: NewEntry[DirectoryReservation], files: list[OpenFile]) -> None:
    name = wanted.reservation.name
    files.append(begin_new(context.layout, DATA, name, wanted.content))
    files.append(begin_new(context.layout, TEMPORARY, name, wanted.metadata))
    if wanted.remember is not None:
        remembered.check_kept(context, files[-1], wanted.remember)
    if wanted.due_at is not None:
        set_due(context.layout, files[-1], wanted.due_at)


def _undo(
    context: Context, wanted: NewEntry[DirectoryReservation], files: list[OpenFile], *, because: BaseException
) -> None:
    """Unlink what a failed enqueue made, even by a call that reported failure: the name may be used again."""
    layout, name = context.layout, wanted.reservation.name
    for file in files:
        file.undo(because=because)
    leave_behind(context, name, wanted.carrier, because=because)
    if context.adopted and _is_free(context, wanted.reservation, because=because):
        for directory in (TEMPORARY, DATA):  # if not adopted, these may belong to a program without locks
            discard(layout, directory, name, because=because)


def _is_free(context: Context, reservation: DirectoryReservation, *, because: BaseException) -> bool:
    """Tell whether a reserved name has no entry, while `because` is being raised."""
    try:
        if not reservation.looked_up:
            _look_up(context, reservation)
    except NameTaken:
        return False
    except SpoolError as error:
        because.add_note(f"what lies under the name {reservation.name!r} is left to recovery: {error}")
        return False
    return True
