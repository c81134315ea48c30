"""The quarantine: set an entry aside in it, put it back once its program can read it, or delete it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from trio_multispool.errors import EntryBusy, EntryNotFound, NameTaken, NotARegularFile, OwnershipLost
from trio_multispool.model.lifecycle import Place, State, Step
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import commits
from trio_multispool.storage.directory.disk.files import UNREADABLE, read_beside, unlink_if_there, write_new
from trio_multispool.storage.directory.disk.layout import (
    QUARANTINE,
    REASONS,
    REGISTRY,
    REMEMBERED,
    checkout_of,
    directory_of,
)
from trio_multispool.storage.directory.disk.locks import lock_or_reserve
from trio_multispool.storage.directory.enqueue import clear_leftovers
from trio_multispool.storage.directory.recovery import collect_if_nowhere, drop_stale_copies, locked_for_the_call
from trio_multispool.storage.directory.syncs.plan import telling_outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trio_multispool.model.policies import Durability
    from trio_multispool.storage.directory.claims import DirectoryClaim
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.syncs.plan import SyncPlan


_LONGEST_REASON: Final = 64 * 1024
"""In bytes. Of a longer one, the beginning is shown."""


def quarantine(context: Context, claim: DirectoryClaim, reason: str) -> None:
    """Set the entry aside, and write down why."""
    layout, name = context.layout, claim.name
    target = claim.check(Step.QUARANTINE)
    aside = directory_of(Place(claim.queue, State.QUARANTINED))
    for directory in (QUARANTINE, aside, REASONS):
        _ = layout.ensure_directory(directory)
    if context.syncs.guarding:  # otherwise power loss could leave the entry in its queue too, or lose its directory
        for directory in ("", QUARANTINE, *map(layout.named, claim.sources)):
            context.syncs.directory(directory)
    with locked_for_the_call(context, claim):
        try:
            unlink_if_there(layout, REASONS, name)
            write_new(layout, REASONS, name, reason.encode(errors="backslashreplace") + b"\n")
        except NotARegularFile as error:  # a directory lies there: the entry is set aside without a reason
            context.say_unreadable(REASONS, name, "why it was set aside cannot be written", str(error))
        if not commits.move(layout, name, claim.home, aside):
            raise OwnershipLost(claim.queue, name)
        claim.settle(target)


def restore(  # noqa: PLR0913  # each is a word of the operation
    context: Context,
    queue: str,
    name: str,
    *,
    to: str | None = None,
    durability: Durability | None,
    before_commit: Callable[[], None],
) -> None:
    """Put the entry into its queue, or the queue `to`, and forget the reason."""
    target = queue if to is None else to
    plan = context.syncs.plan(durability)
    with _locked(context, queue, name, plan) as aside:
        before_commit()
        with telling_outcome(name, target):
            if not commits.move(context.layout, name, aside, target):
                raise EntryNotFound(queue, name)
        with context.tidying(name):
            unlink_if_there(context.layout, REASONS, name)
    if plan.after:
        context.syncs.committed(target, name, target)


def discard(
    context: Context, queue: str, name: str, *, durability: Durability | None, before_commit: Callable[[], None]
) -> None:
    """Delete the entry: the metadata first, which is the commit, and the reservation last."""
    layout = context.layout
    plan = context.syncs.plan(durability)
    with _locked(context, queue, name, plan) as aside:
        before_commit()
        with telling_outcome(name, queue):
            if not commits.unlink(layout, aside, name):
                raise EntryNotFound(queue, name)
        if plan.before:  # before the data is deleted: power loss must not bring back an entry without its data
            context.syncs.committed(aside, name, queue)
        with context.tidying(name):
            unlink_if_there(layout, REASONS, name)
            unlink_if_there(layout, REMEMBERED, name)  # its work was not done: it may be sent again
            clear_leftovers(context, name)
            unlink_if_there(layout, REGISTRY, name)


@contextlib.contextmanager
def _locked(context: Context, queue: str, name: str, plan: SyncPlan) -> Generator[str]:
    """Hold the lock of an entry in quarantine alone; yield its directory. Raises `EntryNotFound` or `EntryBusy`.

    Sync first that the entry left its check-out. Otherwise power loss could bring that back beside the next step.
    """
    layout = context.layout
    aside = directory_of(Place(queue, State.QUARANTINED))
    _ = layout.refresh(aside)
    if not layout.holds(aside, name):
        raise EntryNotFound(queue, name)
    lock = lock_or_reserve(layout, name)  # power loss (or a person) may have removed the reservation
    if isinstance(lock, Unavailable):
        raise EntryBusy(name)
    with lock:
        drop_stale_copies(context, name)  # also the copy from a restore that was killed half-way
        if not layout.holds(aside, name):
            if lock.newborn:
                _ = collect_if_nowhere(context, name)
            raise EntryNotFound(queue, name)
        others = [place for place in layout.places_of(name) if place.state in (State.AVAILABLE, State.WAITING)]
        if others:  # put there by a program without locks: the data may belong to that one
            raise NameTaken(name)
        context.syncs.catch_up(name, plan)
        if plan.before and not plan.catch_up:
            if layout.optional_fd(checkout_of(queue)) is not None:  # its queue may be gone meanwhile
                context.syncs.directory(checkout_of(queue))
            context.syncs.directory(aside)
        yield aside


def reason_of(context: Context, name: str) -> str | None:
    """Return why an entry was set aside; `None` if no reason is kept, or if it cannot be read."""
    try:
        reason = read_beside(context.layout, REASONS, name)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        context.say_unreadable(REASONS, name, "why it was set aside cannot be read", str(error))
        return None
    return reason[:_LONGEST_REASON].decode(errors="replace").rstrip("\n")
