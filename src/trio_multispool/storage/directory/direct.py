"""Operations on an entry that do not make their caller its owner.

They lock the entry for the length of the call if they can. If another owner has the lock, they go on all the same.
So they only ever exchange with, or unlink, a file that must still be there. They never bring back an entry that is
gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_multispool.errors import EntryNotFound
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.storage.directory import commits, remembered
from trio_multispool.storage.directory.data import as_stat
from trio_multispool.storage.directory.disk.files import unlink_if_there
from trio_multispool.storage.directory.disk.layout import REGISTRY, TEMPORARY, directory_of
from trio_multispool.storage.directory.enqueue import clear_leftovers
from trio_multispool.storage.directory.recovery import locked_if_possible
from trio_multispool.storage.directory.syncs.plan import telling_outcome
from trio_multispool.storage.directory.temporaries import unsafe_temporary

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.model.policies import Durability
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.requests import Stat


def stat(context: Context, place: Place, name: str) -> Stat:
    """Return size and age of an entry's metadata; raises `NotARegularFile` for a thing that is not an entry."""
    layout, directory = context.layout, directory_of(place)
    with layout.doing("look at", directory, name):
        try:
            found = layout.again_if_replaced(directory, lambda: layout.calls.stat(name, layout.fds[directory]))
        except FileNotFoundError as error:
            raise EntryNotFound(place.queue, name) from error
    return as_stat(found, layout.full(directory, name))


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

    _ = stat(context, Place(queue, State.AVAILABLE), name)
    with locked_if_possible(context, name), unsafe_temporary(context, name, metadata, sync=plan.before) as new:
        context.syncs.catch_up(name, plan)
        before_commit()
        with telling_outcome(name, queue):
            if not commits.exchange(layout, (TEMPORARY, new.name), queue, name):
                raise EntryNotFound(queue, name)
    if plan.after:
        syncs.committed(queue, name, queue)


def delete(
    context: Context, queue: str, name: str, *, durability: Durability | None, before_commit: Callable[[], None]
) -> None:
    """Delete an available entry. If another owner has its lock, recovery deletes its other files."""
    layout, syncs = context.layout, context.syncs
    plan = syncs.plan(durability)
    _ = stat(context, Place(queue, State.AVAILABLE), name)
    with locked_if_possible(context, name) as locked, remembered.finishing(context, name, locked=locked) as kept:
        context.syncs.catch_up(name, plan)
        if plan.before:  # the check-outs: otherwise power loss could bring back a copy of an entry that was returned
            needed = (*kept, directory_of(Place(queue, State.CHECKED_OUT)))
            for failure in syncs.together(needed).values():
                raise failure
        before_commit()
        with telling_outcome(name, queue):
            if not commits.unlink(layout, queue, name):
                raise EntryNotFound(queue, name)
        if plan.before:
            syncs.committed(queue, name, queue)
        if locked:
            with context.tidying(name):
                clear_leftovers(context, name)
                unlink_if_there(layout, REGISTRY, name)
