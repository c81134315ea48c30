"""The inventory: every entry, where it is, how old, and who has it. It locks nothing and writes nothing."""

from __future__ import annotations

import contextlib
import heapq
import os
import stat
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from trio_multispool.clock import this_process
from trio_multispool.errors import NotARegularFile, SpoolError
from trio_multispool.model.lifecycle import State
from trio_multispool.model.notes import progress_in
from trio_multispool.model.times import aware
from trio_multispool.storage.directory.data import as_stat
from trio_multispool.storage.directory.disk.layout import REGISTRY, directory_of
from trio_multispool.storage.directory.notes import notes_and_fault
from trio_multispool.storage.requests import Item, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trio_multispool.model.lifecycle import Place
    from trio_multispool.model.notes import Progress
    from trio_multispool.storage.directory.disk.layout import Layout

_LOCKS: Final = "/proc/locks"

_TRIES: Final = 10
"""How often an entry may move on while all places are looked at."""

_COARSE: Final = 1.0
"""How many seconds later a move may seem than the clock that its owner read: file systems keep coarse time."""


def inventory(
    layout: Layout, places: Sequence[Place], state: State | None = None, most: int | None = None
) -> Iterator[Item]:
    """Yield every entry in these places, or of one state, in no order; or `most` of them, the first by name.

    An entry that moves meanwhile may be missed or seen twice. No list is kept: a queue may be larger than memory.
    """
    wanted = [place for place in places if state in (None, place.state)]
    found = ((name, place) for place in wanted for name in layout.each_entry_name(directory_of(place)))
    owners: dict[Place, dict[tuple[int, int, int], Owner]] = {}
    for name, place in found if most is None else heapq.nsmallest(most, found, key=itemgetter(0)):
        if place not in owners:
            owners[place] = lock_owners() if place.state is State.CHECKED_OUT else {}
        item = _item(layout, place, name, owners[place])
        if item is not None:
            yield item


def find(layout: Layout, name: str) -> Item | None:
    """Return an entry, wherever it is; `None` if there is none. Raises `NotARegularFile` if all that is there is none.

    Raises `AccessDenied` if it may be where this process cannot look.
    """
    odd = None
    for _ in range(_TRIES):
        place = layout.place_of(name)
        if place is None and not layout.holds(REGISTRY, name):  # else it may have moved to a place already looked at
            return None
        item = None if place is None else _item(layout, place, name)
        if item is None and place is not None:  # that was no regular file, or it has moved on
            odd = layout.full(directory_of(place), name) if layout.holds(directory_of(place), name) else None
            item = next(filter(None, (_item(layout, other, name) for other in layout.places_of(name))), None)
        if item is not None:
            return item
    if odd is not None:
        raise NotARegularFile(odd)
    return None


def _item(
    layout: Layout, place: Place, name: str, owners: dict[tuple[int, int, int], Owner] | None = None
) -> Item | None:
    directory = directory_of(place)
    found = layout.look_at(directory, name)
    if found is None or not stat.S_ISREG(found.st_mode):  # gone, or not what it was
        return None
    seen = as_stat(found, directory)
    if owners is None:
        owners = lock_owners() if place.state is State.CHECKED_OUT else {}
    owner = _owner(layout, name, owners) if owners else None
    progress = _progress(layout, name, found.st_ctime) if place.state is State.CHECKED_OUT else None
    due_at = aware(found.st_mtime) if place.state is State.WAITING else None
    return Item(name, place, seen.size, seen.modified_at, owner, progress, due_at, found.st_mtime, found.st_ctime)


def _progress(layout: Layout, name: str, checked_out_at: float) -> Progress | None:
    """Return the progress that the owner reported since the check-out; ignores any older report."""
    try:
        progress = progress_in(notes_and_fault(layout, name)[0])
    except SpoolError:  # optional here: an inventory must not fail for want of it
        return None
    return progress if progress is None or progress.at >= checked_out_at - _COARSE else None


def count(layout: Layout, places: Sequence[Place], state: State | None = None) -> int:
    """Return how many entries `inventory` would yield. Much faster: it does not look at the files."""
    counted = [place for place in places if state in (None, place.state)]
    return sum(1 for place in counted for _ in layout.each_entry_name(directory_of(place)))


def _owner(layout: Layout, name: str, owners: dict[tuple[int, int, int], Owner]) -> Owner | None:
    try:
        found = layout.calls.stat(name, layout.fds[REGISTRY])
    except OSError:  # optional here: an inventory must not fail for want of it
        return None
    return owners.get((os.major(found.st_dev), os.minor(found.st_dev), found.st_ino))


def lock_owners() -> dict[tuple[int, int, int], Owner]:
    """Return the processes that hold `flock` locks, by device and inode, if the kernel shows them.

    Processes in other PID namespaces, and files on btrfs and overlayfs, are not shown (proc(5), /proc/locks).
    """
    owners: dict[tuple[int, int, int], Owner] = {}
    host, _ = this_process()
    with contextlib.suppress(OSError), open(_LOCKS, encoding="ascii") as lines:  # a kernel interface
        for line in lines:
            fields = line.split()
            if "FLOCK" in fields and "->" not in fields:
                major, minor, inode = fields[5].split(":")
                owners[int(major, 16), int(minor, 16), int(inode)] = Owner(host, int(fields[4]))
    return owners
