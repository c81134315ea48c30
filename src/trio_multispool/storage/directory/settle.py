"""Settling: here a job is renamed into a queue (save, release) or unlinked (remove), under its lock.

The order of the calls is the protocol; the reason for each is beside it. All calls run under the entry's lock, except
for claims that were made without one (`claims_unsafe`). Those take the lock for the length of the call if they can.
Otherwise they rely on exchanging with, or unlinking, a file that must still be there.

Before the entry goes on, save and remove sync the directory from which it was checked out. Otherwise btrfs, after power
loss, can have the entry's next place on disk without the rename of the check-out: then the entry comes back twice.
Release puts the entry back where it was. It needs that sync only if the claim does not know where that is. The
operations yield what they need synced (see `syncs/together.py`), so that claims settled together share their syncs.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from trio_multispool.errors import DurabilityUnknown, NameTaken, OwnershipLost, SpoolError
from trio_multispool.model.lifecycle import Step
from trio_multispool.storage.directory import commits, remembered
from trio_multispool.storage.directory.cancellations import withdraw
from trio_multispool.storage.directory.disk.files import begin_new, unlink_if_there
from trio_multispool.storage.directory.disk.layout import DATA, REGISTRY, TEMPORARY, waiting_of
from trio_multispool.storage.directory.enqueue import clear_leftovers
from trio_multispool.storage.directory.notes import leave, left
from trio_multispool.storage.directory.recovery import locked_for_the_call
from trio_multispool.storage.directory.stamps import renew
from trio_multispool.storage.directory.syncs.plan import catch_up, committing
from trio_multispool.storage.directory.syncs.together import run_together
from trio_multispool.storage.directory.temporaries import Leftovers, unsafe_temporary
from trio_multispool.storage.directory.waiting import set_due, where_to_wait
from trio_multispool.storage.requests import Removing, Saving

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from trio_multispool.storage.directory.claims import DirectoryClaim
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.files import OpenFile
    from trio_multispool.storage.directory.syncs.plan import SyncPlan
    from trio_multispool.storage.directory.syncs.together import Need, Steps
    from trio_multispool.storage.requests import Releasing, Settlement


def settle(context: Context, settlements: Sequence[Settlement[DirectoryClaim]]) -> list[BaseException | None]:
    """Settle several claims with shared syncs; return what each raised, or `None`."""
    leftovers = Leftovers(context.layout, len(settlements))
    operations = [_settling(context, settlement, leftovers) for settlement in settlements]
    return run_together(context.syncs.together, operations)


def _settling(context: Context, settlement: Settlement[DirectoryClaim], leftovers: Leftovers) -> Steps:
    match settlement:
        case Saving():
            return save(context, settlement)
        case Removing():
            return remove(context, settlement, leftovers)
        case _:
            return release(context, settlement)


def save(context: Context, wanted: Saving[DirectoryClaim]) -> Steps:
    """Move the entry to a queue, with new metadata unless it is `None`.

    If it is to wait there, its metadata is written anew in any case, and the new file carries the time. So a save
    killed before the move leaves no state that other saves do not leave. Likewise if it was taken before it was due:
    the file carries a time that is still to come, and no age could be told by it.
    """
    layout, claim, queue, metadata, due_at = context.layout, wanted.claim, wanted.queue, wanted.metadata, wanted.due_at
    name, source = claim.name, claim.home
    target = claim.check(Step.SAVE if due_at is None else Step.SAVE_TO_WAIT)
    plan = context.syncs.plan(wanted.durability)
    destination = queue if due_at is None else where_to_wait(context, queue, plan)
    if metadata is None and (due_at is not None or (claim.due_at or 0.0) > context.now()):
        metadata = claim.metadata
    with (
        locked_for_the_call(context, claim),
        _new_metadata(context, claim, metadata) as new,
        left(context, claim, wanted.notes, plan) as noted,
    ):
        if new is not None and due_at is not None:
            set_due(layout, new, due_at)
        yield from _synced_before_a_save(context, claim, new, noted, plan)
        wanted.before_commit()
        if new is not None and not commits.exchange(layout, (TEMPORARY, new.name), source, name):
            raise OwnershipLost(claim.queue, name)
        if due_at is None and not context.adopted:
            renew(context, source, name)
        try:
            if not commits.move(layout, name, source, destination):
                raise OwnershipLost(claim.queue, name)  # noqa: TRY301  # undone like all others
        except commits.CommitUnknown as error:
            raise DurabilityUnknown(name, queue, committed=False) from error
        except BaseException as error:  # passed on: whatever it was, the exchange is undone
            if new is not None:  # the old metadata is still under the new file's name
                _put_old_metadata_back(context, claim, new.name, error)
            raise
        claim.state = target
    _let_go(context, wanted)  # only once the temporary file is gone: the next owner will use its name
    if plan.after:
        with committing(name, queue):
            yield (destination,)


def _withdraw(context: Context, name: str) -> None:
    with context.tidying(name):
        withdraw(context, name)


def _let_go(context: Context, saved: Saving[DirectoryClaim]) -> None:
    if saved.withdraws:
        _withdraw(context, saved.claim.name)
    saved.claim.abandon()


def _synced_before_a_save(
    context: Context, claim: DirectoryClaim, new: OpenFile | None, noted: tuple[Need, ...], plan: SyncPlan
) -> Steps:
    if plan.before:
        sources = map(context.layout.named, claim.sources)
        yield (*noted, *sources) if new is None else (new, *noted, *sources)
    if plan.catch_up:
        context.syncs.file(DATA, claim.name)
        yield catch_up(context.layout)
        if new is None:
            context.syncs.file(claim.home, claim.name)
    if new is not None:
        new.close()


def _put_old_metadata_back(context: Context, claim: DirectoryClaim, new: str, because: BaseException) -> None:
    try:
        _ = commits.exchange(context.layout, (TEMPORARY, new), claim.home, claim.name)
    except (OSError, SpoolError) as error:
        because.add_note(f"the entry keeps its new metadata in its old queue: {error}")


@contextlib.contextmanager
def _new_metadata(context: Context, claim: DirectoryClaim, metadata: bytes | None) -> Generator[OpenFile | None]:
    """Write new metadata to a temporary file and yield it; at the end, unlink the file under its name."""
    if metadata is None:
        yield None
        return

    if claim.lock is None:
        with unsafe_temporary(context, claim.name, metadata, sync=False) as new:
            yield new
        return
    layout, name = context.layout, claim.name
    unlink_if_there(layout, TEMPORARY, name)  # left by a dead owner of this name
    with begin_new(layout, TEMPORARY, name, metadata) as new:
        yield new
    with context.tidying(name):
        unlink_if_there(layout, TEMPORARY, name)


def remove(context: Context, wanted: Removing[DirectoryClaim], leftovers: Leftovers) -> Steps:
    """Delete the entry: the metadata first, which is the commit, and the reservation last."""
    if wanted.claim.lock is None or leftovers.may_be_remembered():
        return _remove_under_lock(context, wanted, leftovers)
    return _remove(context, wanted, leftovers)


def _remove_under_lock(context: Context, wanted: Removing[DirectoryClaim], leftovers: Leftovers) -> Steps:
    """Do so with what most removals need not: a lock for the call, and a name that is remembered."""
    claim = wanted.claim
    _ = claim.check(Step.REMOVE)
    with (
        locked_for_the_call(context, claim) as locked,
        remembered.finishing(context, claim.name, locked=claim.lock is not None) as kept,
    ):
        yield from _remove(context, wanted, leftovers, locked=locked, kept=kept)


def _remove(
    context: Context,
    wanted: Removing[DirectoryClaim],
    leftovers: Leftovers,
    *,
    locked: bool = True,
    kept: tuple[Need, ...] = (),
) -> Steps:
    claim, name, plan = wanted.claim, wanted.claim.name, context.syncs.plan(wanted.durability)
    target, source = claim.check(Step.REMOVE), claim.home
    if plan.before:
        yield (*kept, *(catch_up(context.layout) if plan.catch_up else map(context.layout.named, claim.sources)))
    wanted.before_commit()
    try:
        if not commits.unlink(context.layout, source, name):
            raise OwnershipLost(claim.queue, name)
    except commits.CommitUnknown as error:
        raise DurabilityUnknown(name, claim.queue, committed=False) from error
    claim.state = target
    try:
        # Also for a lower level: if power loss brings the entry back, it must have its data.
        if plan.before:
            with committing(name, claim.queue):
                yield (source,)
        if locked:
            if wanted.withdraws:
                _withdraw(context, name)
            clear_leftovers(context, name, leftovers if claim.lock is not None else None)
            unlink_if_there(context.layout, REGISTRY, name)
    except DurabilityUnknown:
        raise
    except SpoolError as error:
        context.say_left_behind(name, error)
    finally:
        claim.abandon()


def release(context: Context, wanted: Releasing[DirectoryClaim]) -> Steps:
    """Put the entry back where it was."""
    claim = wanted.claim
    target = claim.check(Step.RELEASE if claim.due_at is None else Step.RELEASE_TO_WAIT)
    back, source = claim.queue, claim.home
    if claim.due_at is not None:
        back = waiting_of(claim.queue)
        _ = context.layout.ensure_directory(back)  # its queue may have been replaced
    leave(context, claim, wanted.notes)
    sources = map(context.layout.named, claim.sources)
    unsynced = [directory for directory in sources if directory != back]
    with locked_for_the_call(context, claim):
        if unsynced and context.syncs.guarding:
            yield unsynced
        if claim.due_at is None and not context.adopted:
            renew(context, source, claim.name)
        try:
            moved = commits.move(context.layout, claim.name, source, back)
        except NameTaken:  # a second copy is in the queue: recovery will drop one of the two
            claim.settle(target)
            raise
        claim.settle(target)
    if not moved:
        raise OwnershipLost(claim.queue, claim.name)
