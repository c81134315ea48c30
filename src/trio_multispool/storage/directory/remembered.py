"""Remembered names: `.keys/NAME` says until when the name of an entry that is gone must not be used again.

The file is made with the entry, before its commit. It holds the number of seconds, as JSON. Until the entry is removed,
its modification time is 0, which means "not remembered": a name whose enqueue was killed half-way is free. A process
that removes the entry sets the time until which the name is remembered, and syncs that, before the unlink that commits
the removal. So power loss leaves the entry or the memory, and never neither. (If the process is killed in between, both
are left, and the entry counts.)

A process reads the file only under the entry's lock, when it reserves the name. No separate task forgets names: each
removal of an entry whose name is remembered also looks at some other files of the directory, and unlinks those whose
time has passed. So the directory holds little more than the remembered names, and no process lists it all at once.

A file that cannot be read counts as remembered, for good: otherwise a thing could be done twice. Only a blank one whose
time is not in the future can go: an enqueue that was killed, or cut short by power loss, leaves such a file. One of
size 0 is not read for that: a process that has just made it, or was killed then, has not handed it over to others yet.

A time is believed only if a removal can have set it:

- A time before 2010, other than 0, is from a clock that was wrong. The name is remembered for good.
- A time that is not later than the file's last change (its ctime) is no date of a removal: that sets a time in the
  future. Mostly a copy that does not keep times wrote the file. The copy came after the removal. So the name is
  remembered for the seconds in the file, from that time on. This also holds for a file that is over and was changed
  later, by `chown` or by a copy that keeps times: its name is remembered once more for as long, and never forgotten
  early. If the entry's metadata is still in `.tmp`, an enqueue was killed before it set the time to 0, and the name is
  free.
- A time that is too far ahead is believed, and `fault_of` tells of it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import stat
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from trio_multispool.errors import AccessDenied, NotAdopted, NotARegularFile, SpoolError, StorageFailure, TimeNotKept
from trio_multispool.events import Event, log
from trio_multispool.model.notes import decode_beside
from trio_multispool.model.times import AHEAD, EARLIEST, LATEST, aware
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import commits
from trio_multispool.storage.directory.disk.files import (
    UNREADABLE,
    Opened,
    OpenFile,
    begin_new,
    read_beside,
    unlink_if_there,
    wanting_directory,
)
from trio_multispool.storage.directory.disk.layout import FORMAT_FILE, REGISTRY, REMEMBERED, TEMPORARY
from trio_multispool.storage.directory.disk.locks import lock_or_reserve

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterator

    from trio_multispool.model.policies import Durability
    from trio_multispool.storage.directory.claims import DirectoryReservation
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.syncs.plan import SyncPlan
    from trio_multispool.storage.directory.syncs.together import Need

LOOKED_AT_EACH_TIME: Final = 4
"""How many files a removal looks at. It leaves only one there, so removals go round the whole directory."""

_LATEST: Final = LATEST - 1.0

_KEPT_EVERYWHERE: Final = 2.0**31 - 1
"""No file system's time stamps end before this, in January 2038."""


class _Remembered(msgspec.Struct):
    """The content of a file."""

    remember: Annotated[float, msgspec.Meta(ge=0)]
    """In seconds."""


def check_kept(context: Context, file: OpenFile, remember: float) -> None:
    """Raise `TimeNotKept` if the file system cannot keep the time until which a name is to be remembered.

    That is tried on a new file whose date does not matter. On its own file, a kill would leave the name remembered.
    """
    until = min(context.now() + remember, _LATEST)
    if until < _KEPT_EVERYWHERE:
        return
    kept, layout = file.set_modified(until), context.layout
    with layout.doing("set the time of", file.directory, file.name):
        layout.calls.touch(file.name, layout.fds[file.directory])
    if not kept:
        raise TimeNotKept(layout.path, aware(until))


def begin(context: Context, name: str, remember: float, plan: SyncPlan) -> OpenFile:
    """Write the file for a new entry, in a directory that survives power loss; return it open."""
    layout = context.layout
    if not context.is_adopted():
        raise NotAdopted(layout.path, "keys that are remembered")
    with wanting_directory(layout, REMEMBERED):
        if layout.optional_fd(REMEMBERED) is None and layout.ensure_directory(REMEMBERED):
            context.layout.kept.discard(layout.pinned(REMEMBERED))
    context.keep(REMEMBERED, plan)
    # Left by an enqueue of this name that was killed, or by one that did not look the name up.
    unlink_if_there(layout, REMEMBERED, name)
    with begin_new(layout, REMEMBERED, name, _encode(remember)) as file:
        _ = file.set_modified(0)
        return file


def remember(
    context: Context, reservation: DirectoryReservation, remember: float, *, durability: Durability | None
) -> None:
    """Remember a reserved name that has no entry, as if its entry had been removed."""
    plan = context.syncs.plan(durability)
    with begin(context, reservation.name, remember, plan) as file:
        until = min(context.now() + remember, _LATEST)
        if not file.set_modified(until):
            raise TimeNotKept(context.layout.path, aware(until))
        if plan.before:
            for failure in context.syncs.together((file, REMEMBERED)).values():
                raise failure
    file.close()


@contextlib.contextmanager
def finishing(context: Context, name: str, *, locked: bool) -> Generator[tuple[Need, ...]]:
    """Remember the name of an entry around its removal, if asked for; yield what to sync before the commit.

    This needs no room on the disk: a process may remove entries to make room. If this process may not enter the
    directory, nothing is remembered, and the removal goes on: otherwise the work would be done again and again.
    """
    # Asked first because this opens no descriptor where the directory is missing.
    remember = how_long(context, name) if context.layout.is_there(REMEMBERED) else None
    if remember is None:
        yield ()
        return
    with _dated(context, name, remember, locked=locked) as needs:
        yield needs
    with context.tidying(name):
        collect_some(context)


@contextlib.contextmanager
def _dated(context: Context, name: str, remember: float, *, locked: bool) -> Generator[tuple[Need, ...]]:
    """Set the time until which a name is remembered. Replace a file that is another user's, or cannot be opened."""
    layout, until = context.layout, min(context.now() + remember, _LATEST)
    with contextlib.ExitStack() as stack:
        try:
            fd, _ = stack.enter_context(Opened(layout, REMEMBERED, name))
        except (FileNotFoundError, NotARegularFile):  # a person has just had it forgotten; or it is remembered anyhow
            yield ()
            return
        except (AccessDenied, StorageFailure):
            if not locked:  # `.tmp/NAME` may belong to the entry's owner
                raise
        else:
            file = OpenFile(layout, REMEMBERED, name, fd, owned=False)
            try:
                _ = file.set_modified(until)
            except AccessDenied:
                if not locked:
                    raise
            else:
                yield (file,)
                return
    unlink_if_there(layout, TEMPORARY, name)  # left by a dead owner of this name
    with begin_new(layout, TEMPORARY, name, _encode(remember)) as new:
        _ = new.set_modified(until)
        _ = commits.exchange(layout, (TEMPORARY, name), REMEMBERED, name)
        with context.tidying(name):
            unlink_if_there(layout, TEMPORARY, name)
        yield new, REMEMBERED
        new.close()


def how_long(context: Context, name: str) -> float | None:
    """Return for how many seconds to remember the name of an entry; `None` if that was not asked for, or is shut."""
    try:
        return decode_beside(read_beside(context.layout, REMEMBERED, name), _Remembered).remember
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        if _is_shut(context):
            return None
        _say_unreadable(context, name, str(error))
        return LATEST


def _is_shut(context: Context) -> bool:
    """Tell whether this process may not enter the directory; log so once."""
    layout, shut = context.layout, dict[str, SpoolError]()
    _ = layout.is_open(REMEMBERED, shut, is_doubtful=True)
    error = shut.get(REMEMBERED)
    if not isinstance(error, AccessDenied):
        return False
    if REMEMBERED not in context.told_of:
        context.told_of.add(REMEMBERED)
        message = "passed over: %(where)s of spool %(spool)s, so no entry that is removed is remembered: %(error)s"
        log(context.log.warning, Event.PASSED_OVER, layout.path, message, where=REMEMBERED, error=error)
    return True


def _encode(remember: float) -> bytes:
    return msgspec.json.encode(_Remembered(min(remember, LATEST))) + b"\n"


def _read(layout: Layout, name: str) -> float | None:
    """Return for how many seconds to remember a name; `None` if the file is blank. Raises as `read_beside` does."""
    content = read_beside(layout, REMEMBERED, name)
    return decode_beside(content, _Remembered).remember if content.strip(b"\0") else None


def _say_unreadable(context: Context, name: str, why: str) -> None:
    what = f"its file in {REMEMBERED} does not tell until when, so its name is remembered until that is deleted"
    context.say_unreadable(REMEMBERED, name, what, why)


def fault_of(context: Context, name: str) -> str | None:
    """Return why it cannot be told until when a name is remembered; `None` if it can be, or if the file is blank.

    The file cannot be read, or no removal can have dated it. While the entry is there, its date does not matter.
    """
    layout = context.layout
    found = layout.look_at(REMEMBERED, name)
    if found is not None and stat.S_ISREG(found.st_mode) and not found.st_size:
        return None
    try:
        remember = _read(layout, name)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        return str(error)
    if found is None or remember is None:
        return None
    fault = _why_misdated(layout, name, found, remember, context.now())
    try:
        return None if fault is None or layout.places_of(name) else fault
    except AccessDenied:  # it may have an entry
        return None


def _why_misdated(layout: Layout, name: str, found: os.stat_result, remember: float, now: float) -> str | None:
    """Return why a file that can be read is not dated by a removal; `None` if it is, or need not be."""
    at = found.st_mtime
    if at == 0:
        return None
    if at < EARLIEST:
        return _too_early(at)
    if at > now + remember + AHEAD:
        return f"it is dated {aware(at):%Y-%m-%d}, further ahead than was asked for: a clock was wrong"
    if now < at + remember and _is_copied(layout, found, remember) and not _is_half_made(layout, name):
        return "it is dated by its last write, as in a copy that does not keep times"
    return None


def _too_early(at: float) -> str:
    return f"it is dated {aware(at):%Y-%m-%d}, before there were such files: a clock was wrong"


def _is_copied(layout: Layout, found: os.stat_result, remember: float) -> bool:
    """Tell whether a copy has dated a file. It need not be seen: then the file may be over, and changed later.

    A removal came after the making of the spool. So it set a time that is later than that by what was asked for.
    """
    if _is_set(found):
        return False
    made = layout.look_at("", FORMAT_FILE)
    return found.st_mtime == found.st_ctime or (made is not None and found.st_mtime < made.st_mtime + remember)


def _is_set(found: os.stat_result) -> bool:
    """Tell whether somebody has set the time of a file: a write leaves none that is later than its last change."""
    return found.st_mtime > found.st_ctime


def _is_half_made(layout: Layout, name: str) -> bool:
    """Tell whether a name without an entry is that of an enqueue which was killed, and has not been collected yet."""
    return layout.holds(TEMPORARY, name)


def is_remembered(context: Context, name: str, *, forget: bool = True) -> bool:
    """Tell whether a name without an entry must not be used yet; under its lock. Forgets it if its time has passed.

    Without the lock, do not `forget`. It is true then too: a time to come is set by a removal, before it is committed.
    """
    until = _until(context, name)
    if until is None:
        return False
    if until > context.now():
        return True
    if forget:
        unlink_if_there(context.layout, REMEMBERED, name)
    return False


def remembered_until(context: Context, name: str) -> float | None:
    """Return until when a name without an entry is remembered, in seconds since 1970; `None` if it is not."""
    until = _until(context, name)
    return until if until is not None and until > context.now() else None


def remembered(context: Context, after: str, most: int | None) -> list[tuple[str, float]]:
    """Return the names that are remembered, sorted, and until when; a page of them."""
    if not context.layout.is_there(REMEMBERED):
        return []
    names = (name for name in context.layout.each_entry_name(REMEMBERED) if name > after)
    found = ((name, until) for name in sorted(names) if (until := remembered_until(context, name)) is not None)
    return list(itertools.islice(found, most))


def _until(context: Context, name: str) -> float | None:
    """Return until when at least a name is remembered, in seconds since 1970; `None` if there is no file."""
    if not context.layout.is_there(REMEMBERED):
        return None
    with wanting_directory(context.layout, REMEMBERED):  # a symlink counts as there, and leads nowhere
        found = context.layout.look_at(REMEMBERED, name)
    if found is None:
        return None
    if not stat.S_ISREG(found.st_mode):
        return math.inf
    at = found.st_mtime
    if at == 0 or at > context.now() or not found.st_size:  # one without content may not be ours to open yet
        return at
    try:  # before it is forgotten: is it what was written?
        remember = _read(context.layout, name)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        _say_unreadable(context, name, str(error))
        return math.inf
    if remember is None:
        return at
    if at < EARLIEST:
        _say_unreadable(context, name, _too_early(at))
        return math.inf
    return at if _is_set(found) or _is_half_made(context.layout, name) else at + remember


def forgettable(context: Context) -> Iterator[str | None]:
    """Yield each name whose time has passed, and `None` for each other. Names of present entries are among them."""
    if context.layout.optional_fd(REMEMBERED) is None:
        return
    for name in context.layout.each_entry_name(REMEMBERED):
        until = _until(context, name)
        yield name if until is not None and until <= context.now() else None


def collect(context: Context, name: str) -> bool:
    """Forget a name that has no entry and whose time has passed; tell whether that was done."""
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

    Goes through the directory again and again, a few files at a time; `context` keeps the position.
    """
    if not context.collecting.acquire(blocking=False):
        return
    try:
        for _ in range(LOOKED_AT_EACH_TIME):
            names, context.still_to_look_at = context.still_to_look_at, None  # `None` if it cannot be read further
            if names is None:
                names = context.layout.each_entry_name(REMEMBERED)
            name = next(names, None)
            if name is None:
                return
            context.still_to_look_at = names
            until = _until(context, name)
            if until is not None and 0 < until <= context.now():  # 0: it belongs to an entry, or to one being enqueued
                _ = collect(context, name)
    finally:
        context.collecting.release()


def stop_collecting(context: Context) -> None:
    """Close the directory that `collect_some` is reading."""
    with context.collecting:
        context.still_to_look_at = None
