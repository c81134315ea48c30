"""Remembered names: `.keys/NAME` says until when the name of an entry that is gone must not be used again.

The file is made with the entry, before its commit, and holds for how long, as JSON. Until the entry is removed its
modification time is 0, which is no memory: a name whose enqueue was killed half-way is free. Whoever removes the entry
sets the time until which the name is remembered, and syncs that, before the unlink that commits the removal: so power
loss leaves the entry or the memory, and never neither. (Killed in between, it leaves both, and the entry counts.)

It is read only under the entry's lock, by whoever reserves the name. Nobody has to come by for it to be forgotten:
whoever removes an entry that is to be remembered looks at some other files of the directory, and unlinks what has been
there for long enough. So the directory holds little more than what is remembered, and nobody lists it at one go.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import msgspec

from trio_multispool.errors import AccessDenied, NotAdopted, SpoolError
from trio_multispool.model.times import LATEST
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import commits
from trio_multispool.storage.directory.disk.files import (
    OpenFile,
    begin_new,
    new_file,
    opened,
    read_file,
    undo,
    unlink_if_there,
)
from trio_multispool.storage.directory.disk.layout import REGISTRY, REMEMBERED, TEMPORARY
from trio_multispool.storage.directory.disk.locks import lock_or_reserve

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.syncs.plan import SyncPlan
    from trio_multispool.storage.directory.syncs.together import Need

LOOKED_AT_EACH_TIME: Final = 4
"""How many files a removal looks at: more than it leaves there, so that the whole is gone over again and again."""

_LATEST: Final = LATEST - 1.0


class _Remembered(msgspec.Struct):
    """What a file holds."""

    remember: float
    """In seconds."""


_DECODER: Final = msgspec.json.Decoder(_Remembered)


def begin(context: Context, name: str, remember: float, plan: SyncPlan) -> OpenFile:
    """Write down that a new entry is to be remembered, in a directory that power loss cannot take; leave it open."""
    layout = context.layout
    if not context.is_adopted():
        raise NotAdopted(layout.path, "keys that are remembered")
    if layout.optional_fd(REMEMBERED) is None and layout.ensure_directory(REMEMBERED):
        context.kept.discard(REMEMBERED)
    if plan.before and REMEMBERED not in context.kept:  # another process may have made it, and died before its sync
        context.syncs.directory("")
        context.kept.add(REMEMBERED)
    # Left by an enqueue of this name that was killed, or by one that did not look the name up.
    unlink_if_there(layout, REMEMBERED, name)
    file = begin_new(layout, REMEMBERED, name, msgspec.json.encode(_Remembered(min(remember, LATEST))) + b"\n")
    _date(context, file, 0)
    return file


def remember(context: Context, name: str, remember: float, plan: SyncPlan) -> None:
    """Remember a name that has no entry, as if one had been removed; under its lock."""
    file = begin(context, name, remember, plan)
    try:
        file.set_modified(min(context.now() + remember, _LATEST))
        if plan.before:
            for failure in context.syncs.together((file, REMEMBERED)).values():
                raise failure  # noqa: TRY301  # undone like all others
    except BaseException as error:  # passed on: whatever it was, what was begun is undone
        undo(context.layout, file, because=error)
        raise
    file.close()


def _date(context: Context, file: OpenFile, until: float) -> None:
    try:
        file.set_modified(until)
    except BaseException as error:  # passed on: whatever it was, what was begun is undone
        undo(context.layout, file, because=error)
        raise


@contextlib.contextmanager
def finishing(context: Context, name: str, *, locked: bool) -> Generator[tuple[Need, ...]]:
    """Around the removal of an entry: remember it, if it is to be; yield what is to be synced before the commit.

    This needs no room on the disk, for those who remove entries may be making some.
    """
    # Asked first because this opens no descriptor where the directory is missing.
    remember = _how_long(context, name) if context.layout.is_there(REMEMBERED) else None
    if remember is None:
        yield ()
        return
    until = min(context.now() + remember, _LATEST)
    with _dated(context, name, until, locked=locked) as needs:
        yield needs
    with context.tidying(name):
        collect_some(context)


@contextlib.contextmanager
def _dated(context: Context, name: str, until: float, *, locked: bool) -> Generator[tuple[Need, ...]]:
    """Set the time until which a name is remembered; of a file that another user made, by making another one."""
    layout = context.layout
    with contextlib.ExitStack() as stack:
        try:
            fd, found = stack.enter_context(opened(layout, REMEMBERED, name))
        except FileNotFoundError:  # somebody has just had it forgotten
            yield ()
            return
        file = OpenFile(layout, REMEMBERED, name, fd, owned=False)
        try:
            file.set_modified(until)
        except AccessDenied:
            if not locked:  # `.tmp/NAME` may be its owner's
                raise
        else:
            yield (file,)
            return
        content = layout.calls.read(fd, found.st_size)
    unlink_if_there(layout, TEMPORARY, name)  # left by an owner of this name who died
    with new_file(layout, TEMPORARY, name, content) as new:
        new.set_modified(until)
        _ = commits.exchange(layout, (TEMPORARY, name), REMEMBERED, name)
        with context.tidying(name):
            unlink_if_there(layout, TEMPORARY, name)
        yield new, REMEMBERED
        new.close()


def _how_long(context: Context, name: str) -> float | None:
    try:
        return _DECODER.decode(read_file(context.layout, REMEMBERED, name)).remember
    except (FileNotFoundError, msgspec.DecodeError):  # torn by power loss, before its entry was: none was promised
        return None


def is_remembered(context: Context, name: str) -> bool:
    """Tell whether a name that no entry has must not be used yet; under its lock. What is to be forgotten, is."""
    if not context.layout.is_there(REMEMBERED):
        return False
    until = _until(context, name)
    if until is None:
        return False
    if until > context.now():
        return True
    unlink_if_there(context.layout, REMEMBERED, name)
    return False


def forget(context: Context, name: str) -> None:
    """Forget a name, remembered or not; under its lock."""
    if context.layout.optional_fd(REMEMBERED) is not None:
        unlink_if_there(context.layout, REMEMBERED, name)


def _until(context: Context, name: str) -> float | None:
    layout = context.layout
    with layout.doing("look at", REMEMBERED, name):
        try:
            return layout.calls.stat(name, layout.fd(REMEMBERED)).st_mtime
        except FileNotFoundError:
            return None


def forgettable(context: Context) -> Iterator[str]:
    """Yield, of all names that were ever remembered, those that need not be any more, entries' names among them."""
    if context.layout.optional_fd(REMEMBERED) is None:
        return
    for name in context.layout.each_entry_name(REMEMBERED):
        until = _until(context, name)
        if until is not None and until <= context.now():
            yield name


def collect(context: Context, name: str) -> bool:
    """Forget a name that is no entry's and need not be remembered; tell whether that was done."""
    layout = context.layout
    lock = lock_or_reserve(layout, name)
    if isinstance(lock, Unavailable):
        return False
    try:
        if layout.places_of(name):
            return False
        gone = not is_remembered(context, name)
        if lock.newborn:
            unlink_if_there(layout, REGISTRY, name)
        return gone
    finally:
        lock.release()


def collect_some(context: Context) -> None:
    """Look at a few more files, and unlink those that are not needed. Does nothing while another thread does this.

    Goes over the directory again and again, a few files at a time; `context` remembers how far.
    """
    if not context.collecting.acquire(blocking=False):
        return
    try:
        for _ in range(LOOKED_AT_EACH_TIME):
            if not _look_at_next(context):
                return
    finally:
        context.collecting.release()


def _look_at_next(context: Context) -> bool:
    """Look at one file; tell whether there was one. Under the mutex."""
    if context.still_to_look_at is None:
        context.still_to_look_at = context.layout.each_entry_name(REMEMBERED)
    try:
        name = next(context.still_to_look_at, None)
    except (OSError, SpoolError):
        context.still_to_look_at = None
        raise
    if name is None:
        context.still_to_look_at = None
        return False
    until = _until(context, name)
    if until is not None and 0 < until <= context.now():  # 0: an entry has it, or an enqueue that is under way
        _ = collect(context, name)
    return True


def stop_collecting(context: Context) -> None:
    """Let go of the directory that `collect_some` is reading."""
    with context.collecting:
        context.still_to_look_at = None
