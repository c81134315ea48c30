"""Look at a spool in a directory: count names as they are read, lock nothing, write nothing, and never take long.

A queue may hold a million entries. Their names are read in one stream and not kept (except for the sample, see
`state`). In a long queue, only the first entries by name are examined to find the oldest. A look runs in a thread and
can be stopped from outside, so that the command can end at once.
"""

import contextlib
import functools
import heapq
import itertools
import os
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Final, final

from msgspec.structs import replace

from trio_multispool.clock import stopwatch, wall_clock
from trio_multispool.errors import AccessDenied, EntryNotFound, NotARegularFile, SpoolError
from trio_multispool.looks import facts, metadata, owners
from trio_multispool.looks.ages import human_age, told_progress
from trio_multispool.looks.seen import Details, Entry, Listing, Look, QueueLook
from trio_multispool.looks.state import Sampling
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.names import invalid_name
from trio_multispool.model.notes import Progress, progress_in
from trio_multispool.model.pauses import in_force
from trio_multispool.model.times import aware
from trio_multispool.storage.directory.data import as_stat
from trio_multispool.storage.directory.disk.filesystems import file_system_name
from trio_multispool.storage.directory.disk.layout import REGISTRY, directory_of
from trio_multispool.storage.directory.inventory import lock_owners
from trio_multispool.storage.directory.notes import notes_and_fault
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import Item, Owner

_EACH: Final = 10_000
"""Up to this many available entries of a queue are examined one by one; in a longer queue, the `_FIRST`."""

_FIRST: Final = 200
"""How many entries, the first by name, represent a long queue: readers take them next."""

_MOST: Final = 1_000
"""Up to this many check-outs and quarantined entries are examined one by one; the others are only counted."""

_STEP: Final = 1_000
"""How many names are read between two checks whether to go on."""

_HIDDEN: Final = frozenset({"btrfs", "overlayfs"})
"""Where `/proc/locks` shows another device than `stat` does, so that no owner is ever found."""

_LISTED: Final = {State.CHECKED_OUT: _MOST, State.QUARANTINED: _MOST, State.AVAILABLE: _FIRST, State.WAITING: _FIRST}
"""How the entries of a queue are listed, and up to how many, the first by name: the many that wait come last."""

_ON_ITS_WAY: Final = (State.AVAILABLE, State.WAITING, State.CHECKED_OUT, State.QUARANTINED)
"""Where in a queue an entry is looked for, in this order."""

_since = attrgetter("since")
_name = attrgetter("name")


@final
class Looker:
    """Looks at one spool, again and again, in one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self.seen: int = 0
        """How many names the look that is under way has read; may be read by another thread."""
        self._elapsed = stopwatch()
        self._stopped = False

    def stop(self) -> None:
        """End the look that is under way, and all later ones, soon."""
        self._stopped = True

    def look(self) -> Look:
        """Look at everything once; raises a `SpoolError` if there is no spool (any more)."""
        began, self.seen = self._elapsed(), 0
        troubles: list[tuple[str, str]] = []
        seen: list[QueueLook] = []
        held: list[Entry] = []
        aside: list[Entry] = []
        with contextlib.closing(DirectoryStorage.look(self.path)) as storage:
            adopted, calls, root = storage.adopted, storage.layout.calls, storage.layout.fds[""]
            found, file_system = os.fstat(root), file_system_name(calls.file_system_type(root))
            pauses = in_force(storage.pauses(), storage.now())
            for queue in storage.queues():
                try:
                    seen.append(replace(self._queue(storage, queue, held, aside), pause=pauses.get(queue)))
                except FileNotFoundError:  # it went while it was looked at
                    continue
                except OSError as error:
                    troubles.append((queue, error.strerror or str(error)))
        ended = self._elapsed()
        return Look(
            at=wall_clock(),
            instant=ended,
            took=ended - began,
            identity=(found.st_dev, found.st_ino),
            adopted=adopted,
            owners_shown=file_system not in _HIDDEN,
            queues=tuple(seen),
            held=tuple(sorted(held, key=_since)),
            aside=tuple(sorted(aside, key=_since)),
            troubles=tuple(troubles),
        )

    def _queue(self, storage: DirectoryStorage, queue: str, held: list[Entry], aside: list[Entry]) -> QueueLook:
        """Look at one queue; what is checked out and what is in quarantine go to the two lists."""
        sampling, waiting = Sampling(), 0
        # What waits comes first, and check-outs before and after what is available: an entry that becomes due, is taken
        # or is given back meanwhile must not be taken for gone.
        for entry in self._files(Place(queue, State.WAITING)):
            sampling.add(entry.name)
            waiting += 1
        for entry in self._files(Place(queue, State.CHECKED_OUT)):
            sampling.add(entry.name)
        oldest, number = None, 0

        def available() -> Iterator[os.DirEntry[str]]:
            nonlocal number, oldest
            for entry in self._files(Place(queue, State.AVAILABLE)):
                number += 1
                sampling.add(entry.name)
                if number <= _EACH:
                    oldest = _earlier(oldest, entry)
                yield entry

        first = heapq.nsmallest(_FIRST, available(), key=_name)
        if number > _EACH:
            for entry in first:
                oldest = _earlier(oldest, entry)
        taken = [*self._files(Place(queue, State.CHECKED_OUT))]
        for entry in taken:
            sampling.add(entry.name)
        set_aside = [*self._files(Place(queue, State.QUARANTINED))]
        held += self._examined(storage, Place(queue, State.CHECKED_OUT), taken[:_MOST])
        aside += self._examined(storage, Place(queue, State.QUARANTINED), set_aside[:_MOST])
        return QueueLook(
            queue=queue,
            available=number,
            held=len(taken),
            aside=len(set_aside),
            sample=sampling.sample(),
            oldest_at=oldest,
            oldest_of_all=number <= _EACH,
            waiting=waiting,
        )

    def _files(self, place: Place) -> Iterator[os.DirEntry[str]]:
        """Yield the entries of a place in the order of the directory, until it is time to stop."""
        try:
            found = os.scandir(self.path / directory_of(place))
        except FileNotFoundError:
            if place.state is State.AVAILABLE:
                raise
            return  # a queue need not have check-outs, nor anything in quarantine
        with found:
            for number, entry in enumerate(found):
                if not number % _STEP and self._stopped:
                    return
                if entry.is_file(follow_symlinks=False) and invalid_name(entry.name) is None:
                    self.seen += 1
                    yield entry

    def _examined(self, storage: DirectoryStorage, place: Place, files: list[os.DirEntry[str]]) -> list[Entry]:
        """Examine entries one by one; those that have gone meanwhile are left out."""
        held = place.state is State.CHECKED_OUT
        by_lock, told = lock_owners() if held and files else {}, functools.cache(owners.told)
        found: list[Entry] = []
        asked = frozenset(storage.asked_to_cancel()) if held and files else frozenset[str]()
        for file in files:
            if (stat := _stat(file)) is None:
                continue
            written_at = min(stat.st_mtime, stat.st_ctime)
            entry = Entry(place.queue, file.name, place.state, stat.st_ctime, written_at, stat.st_size)
            if held:
                owner, noted = self._owner(file.name, by_lock), _noted(storage, file.name)
                progress = [] if noted is None else [told_progress(noted)]
                if file.name in asked and storage.cancellation(place.queue, file.name) is not None:
                    progress.insert(0, "cancel asked")
                entry = replace(entry, by=told(owner), owner=owner, progress=", ".join(progress))
            found.append(entry)
        return found

    def _owner(self, name: str, by_lock: dict[tuple[int, int, int], Owner]) -> Owner | None:
        try:
            found = (self.path / REGISTRY / name).lstat()
        except OSError:
            return None
        return by_lock.get((os.major(found.st_dev), os.minor(found.st_dev), found.st_ino))

    def close(self) -> None:
        """Do nothing: each look opens the spool anew."""

    # Only when a person wants to know more.

    def listing(self, queue: str) -> Listing:
        """List one queue; raises `OSError` if it has gone or cannot be read, and a `SpoolError` if the spool cannot."""
        found: list[Entry] = []
        more = 0
        with contextlib.closing(DirectoryStorage.look(self.path)) as storage:
            for state, most in reversed(_LISTED.items()):  # so none is missed that moves on
                number = itertools.count()  # counts the files, of which only the first are kept
                files = (file for file, _ in zip(self._files(Place(queue, state)), number, strict=False))
                first = heapq.nsmallest(most, files, key=_name)
                found[:0] = self._examined(storage, Place(queue, state), first)
                if state is State.AVAILABLE:
                    more = next(number) - len(first)
        return Listing(queue, tuple(found), more)

    def details(self, queue: str, name: str) -> Details | None:
        """Return what is known about an entry that was seen in this queue, or `None` if it is no more."""
        shut = None
        with contextlib.closing(DirectoryStorage.look(self.path)) as storage:
            queues = dict.fromkeys([queue, *storage.queues()])  # first where it was seen: it may have moved
            for place in itertools.starmap(Place, itertools.product(queues, _ON_ITS_WAY)):
                try:
                    raw = storage.read_metadata(place, name)
                    found = (self.path / directory_of(place) / name).lstat()
                    told = self._facts(storage, place, name, found)
                except (EntryNotFound, OSError):
                    continue
                except (AccessDenied, NotARegularFile) as error:  # it may be in another
                    shut = shut or error
                    continue
                text = metadata.for_person(raw, terminal=True).decode(errors="backslashreplace")
                return Details(place.queue, name, place.state, tuple(told), text)
        if shut is not None:
            raise shut
        return None

    def _facts(
        self, storage: DirectoryStorage, place: Place, name: str, found: os.stat_result
    ) -> list[tuple[str, str]]:
        now, held = wall_clock(), place.state is State.CHECKED_OUT
        owner = self._owner(name, lock_owners()) if held else None
        seen, due_at = as_stat(found, name), aware(found.st_mtime) if place.state is State.WAITING else None
        item = Item(name, place, seen.size, seen.modified_at, owner, _noted(storage, name) if held else None, due_at)
        known = facts.known(storage, item)
        if place.state is State.QUARANTINED and not known.reason:
            known = known._replace(reason="not written down")
        return facts.facts(known, now, by=f"{owners.told(owner)}, for {human_age(now - found.st_ctime)}")


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:  # it was taken, settled, retried or dropped meanwhile
        return None


def _earlier(oldest: float | None, entry: os.DirEntry[str]) -> float | None:
    if (found := _stat(entry)) is None:
        return oldest
    return found.st_mtime if oldest is None else min(oldest, found.st_mtime)


def _noted(storage: DirectoryStorage, name: str) -> Progress | None:
    """Return the progress that an owner reported."""
    try:
        return progress_in(notes_and_fault(storage.layout, name)[0])  # without a line in the log, once a second
    except SpoolError:  # what cannot be read says nothing
        return None
