"""Checking entries out, and settling them: save, remove, release, quarantine.

The order of the calls is the protocol; each has its reason beside it. All of it runs under the entry's lock, but for
claims that were made without one (`claims_unsafe`): those take the lock for the length of the call if they can, and
otherwise rely on exchanging with, or unlinking, a file that must still be there.

Save and remove sync the directory that the entry was checked out of before it goes on: otherwise btrfs, after power
loss, can have the entry's next place on disk and the check-out's rename not, and brings the entry back twice. Release
puts it back where it was, and needs that only of a claim that does not know where that is. What they need synced they
yield (see `sharing`), so that several claims that are settled together share it.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Final

from trio_multispool.errors import (
    AccessDenied,
    DurabilityUnknown,
    NameTaken,
    NotARegularFile,
    OwnershipLost,
    SpoolError,
    StorageFailure,
    UnreadableEntry,
)
from trio_multispool.model.lifecycle import Operation, Place, State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import commits, remembered
from trio_multispool.storage.directory.claims import DirectoryClaim
from trio_multispool.storage.directory.direct import locked_if_possible
from trio_multispool.storage.directory.disk.files import (
    new_file,
    read_file,
    read_file_and_stat,
    unlink_if_there,
    write_new,
)
from trio_multispool.storage.directory.disk.layout import (
    DATA,
    QUARANTINE,
    REASONS,
    REGISTRY,
    TEMPORARY,
    checkout_of,
    directory_of,
    waiting_of,
)
from trio_multispool.storage.directory.disk.locks import lock_existing, lock_or_reserve
from trio_multispool.storage.directory.enqueue import clear_leftovers
from trio_multispool.storage.directory.notes import leave, left
from trio_multispool.storage.directory.recovery import collect_if_nowhere, drop_stale_copies, may_have_copies
from trio_multispool.storage.directory.syncs.plan import catch_up, committing
from trio_multispool.storage.directory.syncs.together import run_together
from trio_multispool.storage.directory.temporaries import Leftovers, unsafe_temporary
from trio_multispool.storage.directory.waiting import where_to_wait
from trio_multispool.storage.protocol import NotDue, Removing, Saving

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from trio_multispool.model.policies import Durability
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.files import OpenFile
    from trio_multispool.storage.directory.disk.locks import Lock
    from trio_multispool.storage.directory.syncs.plan import SyncPlan
    from trio_multispool.storage.directory.syncs.together import Need, Steps
    from trio_multispool.storage.protocol import Notes, Settlement


_OF_ALL_ENTRIES: Final = (errno.ENOLCK, errno.ENOMEM)
"""What the kernel says of itself, whichever entry it was asked about."""

_OF_ONE_ENTRY: Final = (NotARegularFile, AccessDenied, StorageFailure)
"""Trouble with the files of one entry, and not with the whole store: a reader passes it over."""

_HELD: Final = contextlib.nullcontext(enter_result=True)


def claim(
    context: Context, queue: str, name: str, *, due_by: float | None = None, before_commit: Callable[[], None]
) -> DirectoryClaim | Unavailable | NotDue:
    """Check an available entry out. `GONE` if it is not in the queue, `BUSY` if another owner has its lock.

    With `due_by`, one that waits, unless it is due later than that.
    """
    source = queue if due_by is None else waiting_of(queue)
    lock = _lock_to_claim(context, queue, source, name)
    if isinstance(lock, Unavailable):
        return lock
    metadata, due_at, moved = b"", 0.0, False
    try:
        # Read first: running out of descriptors, or a bad sector, must strand nothing in .checkout.
        metadata, due_at = _read_to_claim(context, queue, source, name)
        if due_by is not None and due_at > due_by:
            lock.release()
            return NotDue(due_at)
        before_commit()
        moved = _move_over_stale_copy(context, queue, source, name)
    except FileNotFoundError:
        pass  # gone between the lock and the read
    except NameTaken:
        lock.release()
        return Unavailable.BUSY  # without locks, the copy in .checkout may be somebody's
    except BaseException:  # passed on: whatever it was, the lock is let go
        lock.release()
        raise
    if moved:
        return DirectoryClaim(queue, name, metadata, lock, sources=(source,), due_at=None if due_by is None else due_at)
    try:
        if lock.newborn:  # made for an entry that has gone meanwhile
            with context.tidying(name):
                _ = collect_if_nowhere(context, name)
    finally:
        lock.release()
    return Unavailable.GONE


def _lock_to_claim(context: Context, queue: str, source: str, name: str) -> Lock | Unavailable:
    """Lock an entry that has been seen in a directory of the queue, also if it has lost its reservation."""
    try:
        lock = lock_existing(context.layout, name)
        if lock is not Unavailable.GONE:
            return lock
        return lock_or_reserve(context.layout, name) if context.layout.holds(source, name) else lock
    except _OF_ONE_ENTRY as error:
        if _is_of_all(error):
            raise
        raise UnreadableEntry(queue, name, str(error)) from error


def _read_to_claim(context: Context, queue: str, source: str, name: str) -> tuple[bytes, float]:
    """Return the metadata of an entry whose lock is held, having seen to it that it has no second copy.

    And when it is due, which means something only of one that waits.
    """
    layout = context.layout
    try:
        metadata, found = layout.again_if_replaced(source, lambda: read_file_and_stat(layout, source, name))
        if may_have_copies(context, name, found.st_nlink):
            drop_stale_copies(context, name)
    except _OF_ONE_ENTRY as error:
        if _is_of_all(error):
            raise
        raise UnreadableEntry(queue, name, str(error)) from error
    return metadata, found.st_mtime


def _is_of_all(error: SpoolError) -> bool:
    return isinstance(error, StorageFailure) and error.errno in _OF_ALL_ENTRIES


def _move_over_stale_copy(context: Context, queue: str, source: str, name: str) -> bool:
    """Move an entry to `.checkout`; a copy that is there already is older (see `recovery`), and nobody has the lock."""
    try:
        return commits.move(context.layout, name, source, checkout_of(queue))
    except NameTaken:
        if not context.adopted:
            raise
        _ = commits.unlink(context.layout, checkout_of(queue), name)
        return commits.move(context.layout, name, source, checkout_of(queue))


def settle(context: Context, settlements: Sequence[Settlement[DirectoryClaim]]) -> list[BaseException | None]:
    """Settle several claims, sharing their syncs; return what each raised, or `None`."""
    leftovers = Leftovers(context.layout, len(settlements))
    operations = [_settling(context, settlement, leftovers) for settlement in settlements]
    return run_together(context.syncs.together, operations)


def _settling(context: Context, settlement: Settlement[DirectoryClaim], leftovers: Leftovers) -> Steps:
    match settlement:
        case Saving():
            yield from save(context, settlement)
        case Removing(claim, durability, before_commit):
            yield from remove(context, claim, leftovers, durability=durability, before_commit=before_commit)
        case _:
            yield from release(context, settlement.claim, settlement.notes)


def save(context: Context, wanted: Saving[DirectoryClaim]) -> Steps:
    """Move the entry to a queue, with new metadata unless it is `None`.

    One that is to wait there has its metadata written anew in any case, so that it is the new file which has the time:
    killed before the move, the save leaves no state that others do not leave.
    """
    layout, claim, queue, metadata, due_at = context.layout, wanted.claim, wanted.queue, wanted.metadata, wanted.due_at
    name, source = claim.name, checkout_of(claim.queue)
    target = claim.check(Operation.SAVE if due_at is None else Operation.SAVE_TO_WAIT)
    plan = context.syncs.plan(wanted.durability)
    destination = queue if due_at is None else where_to_wait(context, queue, plan)
    if metadata is None and due_at is not None:
        metadata = claim.metadata
    with (
        _locked_for_the_call(context, claim),
        _new_metadata(context, claim, metadata) as new,
        left(context, claim, wanted.notes, plan) as noted,
    ):
        if new is not None and due_at is not None:
            new.set_modified(due_at)
        yield from _synced_before_a_save(context, claim, new, noted, plan)
        wanted.before_commit()
        if new is not None and not commits.exchange(layout, (TEMPORARY, new.name), source, name):
            raise OwnershipLost(claim.queue, name)
        try:
            if not commits.move(layout, name, source, destination):
                raise OwnershipLost(claim.queue, name)  # noqa: TRY301  # undone like all others
        except commits.CommitUnknown as error:
            raise DurabilityUnknown(name, queue, committed=False) from error
        except BaseException as error:  # passed on: whatever it was, the move is undone
            if new is not None:  # the old metadata is still under the new one's name
                _put_old_metadata_back(context, claim, new.name, error)
            raise
        claim.state = target
    claim.abandon()  # not before the temporary file is gone, whose name the next owner will use
    if plan.after:
        with committing(name, queue):
            yield (destination,)


def _synced_before_a_save(
    context: Context, claim: DirectoryClaim, new: OpenFile | None, noted: tuple[Need, ...], plan: SyncPlan
) -> Steps:
    if plan.before:
        yield (*noted, *claim.sources) if new is None else (new, *noted, *claim.sources)
    if plan.catch_up:
        context.syncs.file(DATA, claim.name)
        yield catch_up(context.layout)
        if new is None:
            context.syncs.file(checkout_of(claim.queue), claim.name)
    if new is not None:
        new.close()


def _put_old_metadata_back(context: Context, claim: DirectoryClaim, new: str, because: BaseException) -> None:
    source = checkout_of(claim.queue)
    try:
        _ = commits.exchange(context.layout, (TEMPORARY, new), source, claim.name)
    except (OSError, SpoolError) as error:
        because.add_note(f"the entry keeps its new metadata in its old queue: {error}")


@contextlib.contextmanager
def _new_metadata(context: Context, claim: DirectoryClaim, metadata: bytes | None) -> Generator[OpenFile | None]:
    """Write new metadata to a temporary file, yield it, and unlink what is under its name at the end."""
    if metadata is None:
        yield None
        return

    if claim.lock is None:
        with unsafe_temporary(context, claim.name, metadata, sync=False) as new:
            yield new
        return
    layout, name = context.layout, claim.name
    unlink_if_there(layout, TEMPORARY, name)  # left by an owner of this name who died
    with new_file(layout, TEMPORARY, name, metadata) as new:
        yield new
    with context.tidying(name):
        unlink_if_there(layout, TEMPORARY, name)


def remove(
    context: Context,
    claim: DirectoryClaim,
    leftovers: Leftovers,
    *,
    durability: Durability | None,
    before_commit: Callable[[], None],
) -> Steps:
    """Delete the entry: the metadata first, which commits it, and the reservation last."""
    syncs, name = context.syncs, claim.name
    target = claim.check(Operation.REMOVE)
    source = checkout_of(claim.queue)
    plan = syncs.plan(durability)
    with (
        _locked_for_the_call(context, claim) as locked,
        remembered.finishing(context, name, locked=claim.lock is not None) as kept,
    ):
        if plan.before:
            yield (*kept, *(catch_up(context.layout) if plan.catch_up else claim.sources))
        before_commit()
        try:
            if not commits.unlink(context.layout, source, name):
                raise OwnershipLost(claim.queue, name)
        except commits.CommitUnknown as error:
            raise DurabilityUnknown(name, claim.queue, committed=False) from error
        claim.state = target
        try:
            # Not left out for a lower level: an entry that power loss brings back must not come back without its data.
            if plan.before:
                with committing(name, claim.queue):
                    yield (source,)
            if locked:
                with context.tidying(name):
                    clear_leftovers(context, name, leftovers if claim.lock is not None else None)
                    unlink_if_there(context.layout, REGISTRY, name)
        finally:
            claim.abandon()


def release(context: Context, claim: DirectoryClaim, notes: Notes | None) -> Steps:
    """Put the entry back where it was."""
    target = claim.check(Operation.RELEASE if claim.due_at is None else Operation.RELEASE_TO_WAIT)
    back = claim.queue if claim.due_at is None else waiting_of(claim.queue)
    leave(context, claim, notes)
    source = checkout_of(claim.queue)
    unsynced = [directory for directory in claim.sources if directory != back]
    with _locked_for_the_call(context, claim):
        if unsynced and context.syncs.guarding:
            yield unsynced
        try:
            moved = commits.move(context.layout, claim.name, source, back)
        except NameTaken:  # a second copy is in the queue: recovery knows which of the two to drop
            claim.settle(target)
            raise
        claim.settle(target)
    if not moved:
        raise OwnershipLost(claim.queue, claim.name)


def quarantine(context: Context, claim: DirectoryClaim, reason: str) -> None:
    """Set the entry aside, and write down why."""
    layout, name = context.layout, claim.name
    target = claim.check(Operation.QUARANTINE)
    aside = directory_of(Place(claim.queue, State.QUARANTINED))
    for directory in (QUARANTINE, aside, REASONS):
        _ = layout.ensure_directory(directory)
    if context.syncs.guarding:  # or power loss could leave the entry in its queue too, or in a directory that is gone
        for directory in ("", QUARANTINE, *claim.sources):
            context.syncs.directory(directory)
    with _locked_for_the_call(context, claim):
        unlink_if_there(layout, REASONS, name)
        write_new(layout, REASONS, name, reason.encode(errors="backslashreplace") + b"\n", sync=False)
        if not commits.move(layout, name, checkout_of(claim.queue), aside):
            raise OwnershipLost(claim.queue, name)
        claim.settle(target)


def _locked_for_the_call(context: Context, claim: DirectoryClaim) -> AbstractContextManager[bool]:
    """Hold the lock of a claim that was made without one, if nobody else does; tell whether it is held."""
    return _HELD if claim.lock is not None else locked_if_possible(context, claim.name)


def claims_unsafe(context: Context, queue: str) -> list[DirectoryClaim]:
    """Return claims without locks on all that is checked out of a queue; what goes meanwhile is left out."""
    checked_out, layout = checkout_of(queue), context.layout
    is_waited_for = layout.optional_fd(waiting_of(queue)) is not None
    sources = (queue, waiting_of(queue)) if is_waited_for else (queue,)
    claims: list[DirectoryClaim] = []
    for name in layout.entry_names(checked_out):
        with contextlib.suppress(FileNotFoundError):
            metadata = read_file(layout, checked_out, name)
            claims.append(DirectoryClaim(queue, name, metadata, None, sources=sources))
    return claims
