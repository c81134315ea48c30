"""Operations on an available entry that do not make their caller its owner.

They lock the entry for the length of the call if they can. If another owner has the lock, they go on all the same.
So they only ever exchange with, or unlink, a file that must still be there. They never bring back an entry that is
gone.
"""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING, Final

from trio_multispool.errors import EntryNotFound, NotARegularFile
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import commits, remembered
from trio_multispool.storage.directory.disk.files import unlink_if_there
from trio_multispool.storage.directory.disk.layout import DATA, REGISTRY, TEMPORARY, directory_of
from trio_multispool.storage.directory.disk.locks import lock_existing
from trio_multispool.storage.directory.enqueue import clear_leftovers
from trio_multispool.storage.directory.recovery import drop_stale_copies
from trio_multispool.storage.directory.syncs.plan import catch_up
from trio_multispool.storage.directory.temporaries import unsafe_temporary

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from trio_multispool.model.policies import Durability
    from trio_multispool.storage.directory.claims import DirectoryClaim
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.syncs.plan import SyncPlan


@contextlib.contextmanager
def locked_if_possible(context: Context, name: str) -> Generator[bool]:
    """Hold an entry's lock for the length of a block if no other owner has it; yield whether it is held."""
    lock = lock_existing(context.layout, name)
    if isinstance(lock, Unavailable):
        yield False
        return
    try:
        drop_stale_copies(context, name)
        yield True
    finally:
        lock.release()


def _check(context: Context, queue: str, name: str) -> None:
    """Raise `EntryNotFound`, or `NotARegularFile` for a thing that is not an entry and is left alone."""
    layout = context.layout
    with layout.doing("look at", queue, name):
        try:
            found = layout.again_if_replaced(queue, lambda: layout.calls.stat(name, layout.fd(queue)))
        except FileNotFoundError as error:
            raise EntryNotFound(queue, name) from error
    if not stat.S_ISREG(found.st_mode):
        raise NotARegularFile(layout.full(queue, name))


def catch_up_with(context: Context, name: str, plan: SyncPlan) -> None:
    """Sync what earlier operations on an entry may have left unsynced, if the plan asks for it."""
    if plan.catch_up:
        context.syncs.file(DATA, name)
        for directory in catch_up(context.layout):
            context.syncs.directory(directory)


def replace_metadata(  # noqa: PLR0913  # each is a word of the operation
    context: Context,
    queue: str,
    name: str,
    metadata: bytes,
    *,
    durability: Durability | None,
    before_commit: Callable[[], None],
) -> None:
    """Rewrite the metadata of an available entry in place."""
    layout, syncs = context.layout, context.syncs
    plan = syncs.plan(durability)

    _check(context, queue, name)
    with (
        locked_if_possible(context, name),
        unsafe_temporary(context, name, metadata, sync=plan.before) as new,
    ):
        catch_up_with(context, name, plan)
        before_commit()
        if not commits.exchange(layout, (TEMPORARY, new.name), queue, name):
            raise EntryNotFound(queue, name)
    if plan.after:
        syncs.committed(queue, name, queue)


def delete(
    context: Context,
    queue: str,
    name: str,
    *,
    durability: Durability | None,
    before_commit: Callable[[], None],
) -> None:
    """Delete an available entry. If another owner has its lock, recovery deletes its other files."""
    layout, syncs = context.layout, context.syncs
    plan = syncs.plan(durability)
    _check(context, queue, name)
    with locked_if_possible(context, name) as locked, remembered.finishing(context, name, locked=locked) as kept:
        catch_up_with(context, name, plan)
        if plan.before:  # the check-outs: otherwise power loss could bring back a copy of an entry that was returned
            needed = (*kept, directory_of(Place(queue, State.CHECKED_OUT)))
            for failure in syncs.together(needed).values():
                raise failure
        before_commit()
        if not commits.unlink(layout, queue, name):
            raise EntryNotFound(queue, name)
        if plan.before:
            syncs.committed(queue, name, queue)
        if locked:
            with context.tidying(name):
                clear_leftovers(context, name)
                unlink_if_there(layout, REGISTRY, name)


_HELD: Final = contextlib.nullcontext(enter_result=True)


def locked_for_the_call(context: Context, claim: DirectoryClaim) -> AbstractContextManager[bool]:
    """Hold the lock of a claim that was made without one, if no other owner has it; yield whether it is held."""
    return _HELD if claim.lock is not None else locked_if_possible(context, claim.name)
