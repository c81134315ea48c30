"""Recovery: bringing back the entries of dead owners, and collecting files that belong to no entry.

An owner is dead if its lock can be taken; nothing here acts without that lock. Each step may be killed and done again.
An entry is put back before anything is collected. A name is collected only if it is in no place on disk, looked up
while the lock is held. If any place cannot be read or entered, or is no directory, nothing is collected.

Two copies of one name can only come from a file system that does not keep the order of renames across power loss, or
from one without `RENAME_NOREPLACE`: the copy that is available, waits, or is in quarantine is the later state. So the
checked-out one is dropped. Of several that are checked out, the one that was moved last (`st_ctime`) is the latest.
If an entry is available and, in the same file, in quarantine, it was being restored, which is the only step between the
two: the copy in quarantine is dropped. If it is another file, a person put it there by hand, and it is left.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from trio_multispool.errors import (
    AccessDenied,
    NameTaken,
    NotARegularFile,
    OutOfSpace,
    ReadOnlySpool,
    SpoolError,
    StorageFailure,
    SyncsRefused,
    TooManyOpenFiles,
)
from trio_multispool.events import Event, log
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.names import invalid_name
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import commits, remembered
from trio_multispool.storage.directory.disk.files import unlink_if_there
from trio_multispool.storage.directory.disk.layout import (
    CANCELLATIONS,
    DATA,
    DATA_PREFIX,
    NOTES,
    NOTES_PREFIX,
    OWNERS_PREFIXES,
    REASONS,
    REGISTRY,
    REMEMBERED,
    TEMPORARY,
    UNSAFE_PREFIX,
    directory_of,
    waiting_of,
)
from trio_multispool.storage.directory.disk.locks import lock_existing, lock_new, locks_at_a_time
from trio_multispool.storage.directory.enqueue import collect_leftovers
from trio_multispool.storage.directory.notes import forget_progress_of_the_dead
from trio_multispool.storage.directory.stamps import end_waiting
from trio_multispool.storage.directory.temporaries import clear_dead_temporary
from trio_multispool.storage.requests import Recovered

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator
    from contextlib import AbstractContextManager

    from trio_multispool.storage.directory.claims import DirectoryClaim
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.layout import Denied
    from trio_multispool.storage.directory.disk.locks import Lock

_Act: TypeAlias = "Callable[[Context, _Seen], Recovered | None]"
"""`_recover_locked`, or a function that only tells what it would do."""

_BREATH: Final = 64
"""The number of names after which the caller may give up. It is small: on a slow disk, each look takes long."""

_SWEPT_TOGETHER: Final = 100_000
"""The number of names that are looked for in one pass over all places."""


def recover(context: Context, queue: str | None = None, *, insist: bool = True) -> list[Recovered]:
    """Put back what dead owners had checked out of `queue` (or of any), and clear what dead processes were writing.

    Without `insist`, log that no write is possible at the moment, and go on.
    """
    try:
        return [found for found in _recover(context, queue, _recover_locked) if isinstance(found, Recovered)]
    except (OutOfSpace, ReadOnlySpool, TooManyOpenFiles) as error:
        if insist:
            raise
        message = "recovery of spool %(spool)s was put off: %(error)s"
        log(context.log.warning, Event.RECOVERY_PUT_OFF, context.layout.path, message, error=error)
        return []


def recover_all(context: Context, *, dry_run: bool = False) -> Iterator[Recovered | SpoolError | None]:
    """Recover, then sweep. Yield what was (or would be) done, each name once, and the errors; `None` now and then."""
    act = _would_recover if dry_run else _recover_locked
    told: set[str] = set()
    for found in itertools.chain(_recover(context, None, act), sweep(context, act)):
        if not isinstance(found, Recovered):
            yield found
        elif found.name not in told:
            told.add(found.name)
            yield found


def _recover(context: Context, queue: str | None, act: _Act) -> Iterator[Recovered | SpoolError | None]:
    if not context.is_adopted():
        return
    layout = context.layout
    suspects: dict[str, None] = {}
    shut: Denied = {}
    for place in layout.places(queue, shut=shut):
        if place.state is State.CHECKED_OUT:
            suspects.update(dict.fromkeys(layout.entry_names(directory_of(place))))
    doubtful = set(suspects)
    suspects.update(dict.fromkeys(_writers(context, clearing=act is _recover_locked)))
    for several in _in_breaths(suspects):
        for found in _recover_together(context, several, act):
            if isinstance(found, Recovered):
                doubtful.discard(found.name)
            yield found
        if len(several) >= _BREATH:
            yield None
    if queue is None:  # the readers of a queue have their own errors
        yield from _passed_over(context, shut)
    if queue is None and act is _recover_locked:
        context.doubtful = doubtful


def _passed_over(context: Context, shut: Denied) -> Iterator[SpoolError]:
    """Log and yield that directories were passed over, because this process cannot read or enter them."""
    for directory, error in shut.items():
        message = "not recovered: what is in %(where)s of spool %(spool)s: %(error)s"
        log(context.log.warning, Event.NOT_RECOVERED, context.layout.path, message, where=directory, error=error)
        yield error


def _in_breaths(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield the names, as many at a time as are recovered together."""
    most, left = min(_BREATH, locks_at_a_time()), iter(names)
    while several := list(itertools.islice(left, most)):
        yield several


def _recover_together(context: Context, names: Iterable[str], act: _Act) -> Iterator[Recovered | SpoolError]:
    """Recover several names, in one look at all places for all of them, while their locks are held.

    Yields what was done, each once its lock is free: the caller may take long. Logs and yields the error of
    a name, so that the other names are still recovered.
    """
    told: list[Recovered | SpoolError] = []
    with contextlib.ExitStack() as held:
        locked: dict[str, Lock | Unavailable] = {}
        for name in names:
            with _passing_over(context, name, told):
                lock = lock_existing(context.layout, name) if act is _would_recover else _lock_to_recover(context, name)
                if lock is not Unavailable.BUSY:
                    locked[name] = lock
                if not isinstance(lock, Unavailable):
                    _ = held.callback(lock.release)
        yield from told
        shut: Denied = {}
        places = context.layout.where_are(locked, shut) if locked else {}
        for name, lock in locked.items():
            told = []
            with _passing_over(context, name, told):
                found = act(context, _Seen(name, places.get(name, []), shut, reserved=lock is not Unavailable.GONE))
                told += [] if found is None else [found]
            if not isinstance(lock, Unavailable):
                lock.release()
            yield from told


@contextlib.contextmanager
def _passing_over(context: Context, name: str, done: list[Recovered | SpoolError]) -> Generator[None]:
    """Log an error about one entry, and add it to what was done."""
    try:
        yield
    except (NotARegularFile, AccessDenied, StorageFailure, SyncsRefused) as error:
        spool = context.layout.path
        message = "not recovered: entry %(entry)s of spool %(spool)s: %(error)s"
        log(context.log.warning, Event.NOT_RECOVERED, spool, message, entry=name, error=error)
        done.append(error)


def _lock_to_recover(context: Context, name: str) -> Lock | Unavailable:
    """Lock a name; `GONE` if there is no reservation. Makes one if something is left: power loss may have removed it.

    Nobody else takes a name then, as all take that lock first.
    """
    lock = lock_existing(context.layout, name)
    if lock is Unavailable.GONE and _left_something(context, name):
        return lock_new(context.layout, name)
    return lock


def _writers(context: Context, *, clearing: bool) -> Iterator[str]:
    """Yield the names of entries that were being written; unlink temporary files of dead writers at once."""
    layout = context.layout
    with layout.doing("list", TEMPORARY), layout.fresh_fd(TEMPORARY) as fd:
        names = sorted(layout.calls.regular_files(fd))
    for name in names:
        if name.startswith(UNSAFE_PREFIX):
            if clearing:
                _ = clear_dead_temporary(context, name)
        elif invalid_name(entry := name.removeprefix(DATA_PREFIX).removeprefix(NOTES_PREFIX)) is None:
            yield entry


def recover_name(context: Context, name: str) -> Recovered | None:
    """Put one entry back if its owner is dead, or collect a name without an entry; `None`: nothing to do."""
    lock = _lock_to_recover(context, name)
    if isinstance(lock, Unavailable):
        return None
    with lock:
        shut: Denied = {}
        places = context.layout.where_are({name}, shut).get(name, [])
        return _recover_locked(context, _Seen(name, places, shut))


class _Seen(msgspec.Struct):
    """Where a name was seen under its lock, so that it still is there."""

    name: str
    places: list[Place]
    shut: dict[str, SpoolError]
    """Places that could not be read."""
    reserved: bool = True
    """Whether it has a reservation, and so a lock."""

    @property
    def checked_out(self) -> list[Place]:
        """The places that are earlier states than all others."""
        return [place for place in self.places if place.state is State.CHECKED_OUT]


def _recover_locked(context: Context, seen: _Seen) -> Recovered | None:
    layout, name = context.layout, seen.name
    if not seen.reserved:
        return None
    checked_out = seen.checked_out
    if not checked_out:
        layout.refuse_if_unseen(seen.shut, to_collect=False)
    is_elsewhere, put_back = len(checked_out) < len(seen.places), None
    for place in _latest_first(context, name, checked_out):
        if is_elsewhere:
            _drop_copy(context, place, name)
        elif _put_back(context, place, name):
            is_elsewhere, put_back = True, Recovered(name, place.queue)
    for place in _stale(context, seen):
        _drop_copy(context, place, name)
    if not seen.places:
        layout.refuse_if_unseen(seen.shut, to_collect=True)
        return Recovered(name, None) if collect_if_nowhere(context, name) else None  # which looks at each place again
    for prefix in OWNERS_PREFIXES:
        unlink_if_there(layout, TEMPORARY, prefix + name)
    return put_back


def _would_recover(context: Context, seen: _Seen) -> Recovered | None:
    """Tell what `_recover_locked` would do, and change nothing."""
    layout, name = context.layout, seen.name
    if not seen.places:
        layout.refuse_if_unseen(seen.shut, to_collect=True)
        return Recovered(name, None) if seen.reserved or _left_something(context, name) else None
    if seen.checked_out == seen.places:
        return Recovered(name, _latest_first(context, name, seen.checked_out)[0].queue)
    return None


def _latest_first(context: Context, name: str, places: list[Place]) -> list[Place]:
    """Sort the places of several copies by when each was last moved. The lock keeps them from moving."""
    if len(places) < 2:  # noqa: PLR2004  # several
        return places
    return sorted(places, key=lambda place: _file_at(context, place, name).st_ctime_ns, reverse=True)


def _stale(context: Context, seen: _Seen) -> list[Place]:
    """Return the places in quarantine that hold an earlier state of an entry which is available, or waits."""
    available = [place for place in seen.places if place.state in (State.AVAILABLE, State.WAITING)]
    aside = [place for place in seen.places if place.state is State.QUARANTINED]
    if not available or not aside:
        return []
    files = {_file_at(context, place, seen.name).st_ino for place in available}
    return [place for place in aside if _file_at(context, place, seen.name).st_ino in files]


def _file_at(context: Context, place: Place, name: str) -> os.stat_result:
    """Look at the file under that name in a place. The lock keeps it from moving."""
    directory = directory_of(place)
    with context.layout.doing("look at", directory, name):
        return context.layout.calls.stat(name, context.layout.fds[directory])


def _drop_copy(context: Context, place: Place, name: str) -> None:
    layout, directory = context.layout, directory_of(place)
    if commits.unlink(layout, directory, name):
        message, where = "dropped an older copy of entry %(entry)s from %(where)s", layout.full(directory)
        log(context.log.warning, Event.COPY_DROPPED, layout.path, message, entry=name, where=where)


def may_have_copies(context: Context, name: str, links: int) -> bool:
    """Tell whether an available entry, whose file has this number of links, may be checked out as well.

    A move that was killed between its link and its unlink leaves one file under two names. Power loss can leave two
    copies. The recovery at the opening of the spool dropped one of them, except where another owner had the lock.
    """
    return links > 1 or context.doubtful is None or name in context.doubtful


def drop_stale_copies(context: Context, name: str) -> None:
    """Unlink the copies of an entry that are earlier states of it, mainly a checked-out one; under its lock.

    Call it when taking an entry before recovery has seen it. Recovery would later put a left copy back as a second
    entry; after a removal, as an entry without data.
    """
    if not context.adopted:  # without locks, the copy may have an owner
        return
    seen = _Seen(name, context.layout.places_of(name), {})
    checked_out = seen.checked_out if len(seen.checked_out) < len(seen.places) else []
    for place in [*checked_out, *_stale(context, seen)]:
        _drop_copy(context, place, name)
    if context.doubtful is not None:
        context.doubtful.discard(name)


@contextlib.contextmanager
def locked_if_possible(context: Context, name: str) -> Generator[bool]:
    """Hold an entry's lock for the length of a block if no other owner has it; yield whether it is held."""
    lock = lock_existing(context.layout, name)
    if isinstance(lock, Unavailable):
        yield False
        return
    with lock:
        drop_stale_copies(context, name)
        yield True


_HELD: Final = contextlib.nullcontext(enter_result=True)


def locked_for_the_call(context: Context, claim: DirectoryClaim) -> AbstractContextManager[bool]:
    """Hold the lock of a claim that was made without one, if no other owner has it; yield whether it is held."""
    return _HELD if claim.lock is not None else locked_if_possible(context, claim.name)


def _put_back(context: Context, place: Place, name: str) -> bool:
    forget_progress_of_the_dead(context, name)
    end_waiting(context, directory_of(place), name)
    waiting = waiting_of(place.queue)
    if context.syncs.guarding and context.layout.has_directory(waiting):
        context.syncs.directory(waiting)  # if it came from there, power loss must not leave a copy there
    try:
        return commits.move(context.layout, name, directory_of(place), place.queue)
    except NameTaken:  # a program without locks put it there meanwhile; the next recovery sees two copies
        return False


def _left_something(context: Context, name: str) -> bool:
    layout = context.layout
    return (
        any(layout.holds(TEMPORARY, prefix + name) for prefix in OWNERS_PREFIXES)
        or layout.holds(DATA, name)
        or layout.holds(NOTES, name)
        or layout.holds(CANCELLATIONS, name)
        or any(place.state is State.CHECKED_OUT for place in layout.places_of(name))
    )


def collect_if_nowhere(context: Context, name: str) -> bool:
    """Unlink all files under a name that is in no place; under its lock. Tell whether that was done."""
    if context.layout.places_of(name, to_collect=True):
        return False
    if context.adopted:
        _ = remembered.is_remembered(context, name)  # while what else is left still tells whether it was ever done
        collect_leftovers(context, name)
        for directory in (REASONS, CANCELLATIONS):
            if context.layout.has_directory(directory):
                unlink_if_there(context.layout, directory, name)
    unlink_if_there(context.layout, REGISTRY, name)
    return True


def sweep(context: Context, act: _Act | None = None) -> Iterator[Recovered | SpoolError | None]:
    """Collect all reservations, data files and notes that belong to no entry and to no living process.

    Yields `None` now and then, also of names that are still remembered.
    """
    if not context.is_adopted():
        return
    act, layout = _recover_locked if act is None else act, context.layout
    for directory in (REGISTRY, DATA, NOTES, REASONS, CANCELLATIONS):
        beside: Denied = {}
        if not layout.is_open(directory, beside if directory in (NOTES, REASONS, CANCELLATIONS) else None):
            yield from _passed_over(context, beside)
            continue
        names = iter(layout.entry_names(directory))
        while several := list(itertools.islice(names, _SWEPT_TOGETHER)):
            odd: Collection[str] = several
            for _ in range(2):  # look twice: an entry may have moved during the first look
                shut: Denied = {}
                places = layout.where_are(set(odd), shut)  # without the lock; with it, they are looked up again
                if shut:  # nothing is known to be nowhere
                    return
                odd = [name for name in odd if len(places.get(name, ())) != 1]
                if len(several) >= _BREATH:
                    yield None
            for few in _in_breaths(odd):
                yield from _recover_together(context, few, act)
                if len(few) >= _BREATH:
                    yield None
    yield from _sweep_memory(context, act)


def _sweep_memory(context: Context, act: _Act) -> Iterator[Recovered | SpoolError | None]:
    layout, memory = context.layout, dict[str, SpoolError]()
    if not layout.is_open(REMEMBERED, memory):
        yield from _passed_over(context, memory)
        return
    found = remembered.forgettable(context)
    while several := list(itertools.islice(found, _BREATH)):
        shut: Denied = {}
        over = [name for name in several if name is not None]
        places = layout.where_are(over, shut) if over else {}
        for name in over:
            told: list[Recovered | SpoolError] = []
            with _passing_over(context, name, told):
                if name not in places:
                    layout.refuse_if_unseen(shut, to_collect=False)
                    if act is _would_recover or remembered.collect(context, name):
                        told.append(Recovered(name, None))
            yield from told
        if len(several) == _BREATH:
            yield None


def reserve_again(context: Context, name: str) -> bool:
    """Make the reservation of an entry that has lost it; tell whether that was done."""
    layout = context.layout
    found = lock_existing(layout, name)
    if not isinstance(found, Unavailable):
        found.release()
    if found is not Unavailable.GONE or not layout.places_of(name):
        return False
    lock = lock_new(layout, name)
    if isinstance(lock, Unavailable):  # another process is making it
        return False
    with lock:
        return not collect_if_nowhere(context, name)  # it may have left between the two looks


def clear_temporary(context: Context, name: str) -> bool:
    """Unlink a temporary file if its writer is dead, as recovery does; tell whether the file is gone."""
    if name.startswith(UNSAFE_PREFIX):
        return clear_dead_temporary(context, name)
    entry = name.removeprefix(DATA_PREFIX).removeprefix(NOTES_PREFIX)
    if invalid_name(entry) is not None:
        return False
    _ = recover_name(context, entry)
    return not context.layout.holds(TEMPORARY, name)
