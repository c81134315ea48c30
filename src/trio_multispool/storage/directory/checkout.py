"""Checking out: here an entry is renamed out of its queue, into `QUEUE/.checkout/`, under its lock."""

from __future__ import annotations

import contextlib
import errno
import math
from typing import TYPE_CHECKING, Final, NoReturn

from trio_multispool.errors import OF_ONE_FILE, NameTaken, NotARegularFile, SpoolError, StorageFailure, UnreadableEntry
from trio_multispool.model.lifecycle import State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import commits
from trio_multispool.storage.directory.claims import DirectoryClaim
from trio_multispool.storage.directory.disk.files import (
    discard,
    read_file,
    read_file_and_stat,
    wanting_directory,
)
from trio_multispool.storage.directory.disk.layout import REGISTRY, checkout_of, directory_of, waiting_of
from trio_multispool.storage.directory.disk.locks import lock_entry
from trio_multispool.storage.directory.recovery import collect_if_nowhere, drop_stale_copies, may_have_copies
from trio_multispool.storage.directory.stamps import available_since, renew
from trio_multispool.storage.requests import NotDue

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from trio_multispool.model.lifecycle import Place
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.locks import Lock

_OF_ALL_ENTRIES: Final = (errno.ENOLCK, errno.ENOMEM)
"""Errors about the kernel itself, and not about the entry."""


def claim(  # noqa: C901  # in one piece: every reader comes here
    context: Context, place: Place, name: str, *, due_by: float = math.inf, before_commit: Callable[[], None]
) -> DirectoryClaim | Unavailable | NotDue:
    """Check out an entry that is available, or waits. `GONE` if it is not there, `BUSY` if another owner has its lock.

    `NotDue` if it waits, and is due later than `due_by`.
    """
    queue, source, waits, layout = place.queue, directory_of(place), place.state is State.WAITING, context.layout
    if waits and layout.optional_fd(source) is None:
        return Unavailable.GONE
    try:
        lock = lock_entry(layout, name, source)
    except OF_ONE_FILE as error:
        _raise_as_unreadable(error, queue, name)
    if isinstance(lock, Unavailable):
        return lock
    metadata, due_at, written, since, moved = b"", None, 0.0, 0.0, False
    try:
        # Read first: running out of descriptors, or a bad sector, must strand nothing in .checkout.
        metadata, found = _read_to_claim(context, queue, source, name)
        due_at, written = found.st_mtime if waits else None, min(found.st_mtime, found.st_ctime)  # as `stamps` says
        since = available_since(found, waits=waits)
        if due_at is not None and due_at > due_by:
            lock.release()
            return NotDue(due_at)
        before_commit()
        if not waits and not context.adopted:
            renew(context, source, name)
        moved = _move_over_stale_copy(context, queue, source, name)
    except FileNotFoundError:
        pass  # gone between the lock and the read
    except NameTaken:
        lock.release()
        return Unavailable.BUSY  # without locks, the copy in .checkout may have an owner
    except BaseException as error:  # passed on: whatever it was, the lock is released
        _let_go(context, name, lock, because=error)
        raise
    if moved:
        at = checkout_of(queue)
        home, sources = layout.pins.get(at) or layout.pinned(at), (layout.pins.get(source) or layout.pinned(source),)
        return DirectoryClaim(queue, name, metadata, lock, home, sources, due_at, written, since)
    try:
        if lock.newborn:  # this call made the reservation, and the entry is gone meanwhile
            with context.tidying(name):
                _ = collect_if_nowhere(context, name)
    finally:
        lock.release()
    return Unavailable.GONE


def _let_go(context: Context, name: str, lock: Lock, *, because: BaseException) -> None:
    """Release the lock of what was not checked out. What is no entry needs no reservation."""
    if lock.newborn and isinstance(because.__cause__, NotARegularFile):
        discard(context.layout, REGISTRY, name, because=because)
    lock.release()


def _read_to_claim(context: Context, queue: str, source: str, name: str) -> tuple[bytes, os.stat_result]:
    """Return the metadata of an entry whose lock is held, and its `fstat`. First drop any second copy."""
    layout = context.layout
    try:
        try:
            metadata, found = read_file_and_stat(layout, source, name)
        except FileNotFoundError:
            if not layout.refresh(source):
                raise
            metadata, found = read_file_and_stat(layout, source, name)
        if may_have_copies(context, name, found.st_nlink):
            drop_stale_copies(context, name)
    except OF_ONE_FILE as error:
        _raise_as_unreadable(error, queue, name)
    return metadata, found


def _raise_as_unreadable(error: SpoolError, queue: str, name: str) -> NoReturn:
    if isinstance(error, StorageFailure) and error.errno in _OF_ALL_ENTRIES:
        raise error
    raise UnreadableEntry(queue, name, str(error)) from error


def _move_over_stale_copy(context: Context, queue: str, source: str, name: str) -> bool:
    """Move an entry to `.checkout`. A copy already there is older (see `recovery`): no other owner has the lock."""
    try:
        return commits.move(context.layout, name, source, checkout_of(queue))
    except NameTaken:
        if not context.adopted:
            raise
        _ = commits.unlink(context.layout, checkout_of(queue), name)
        return commits.move(context.layout, name, source, checkout_of(queue))


def claims_unsafe(context: Context, queue: str) -> list[DirectoryClaim]:
    """Return claims without locks on all entries checked out of a queue, except those that leave meanwhile."""
    checked_out, layout = checkout_of(queue), context.layout
    for directory in (checked_out, waiting_of(queue)):
        _ = layout.refresh(directory)
    is_waited_for = layout.has_directory(waiting_of(queue))
    sources = tuple(map(layout.pinned, (queue, waiting_of(queue)) if is_waited_for else (queue,)))
    claims: list[DirectoryClaim] = []
    with wanting_directory(layout, checked_out):
        names, home = layout.entry_names(checked_out), layout.pinned(checked_out)
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            claims.append(DirectoryClaim(queue, name, read_file(layout, checked_out, name), None, home, sources))
    return claims
