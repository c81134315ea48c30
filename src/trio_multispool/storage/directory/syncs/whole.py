"""One `syncfs` for all files and directories of a batch, where that is safe and pays.

Safe: only on file systems whose `syncfs` was seen to bring everything to the disk and to report what it could not
write. On overlayfs it returned 0 for data that was lost, so the list is of those that were tried. ext4 goes by the same
number with and without a journal, and without one, writes were seen in the disk's cache after `syncfs` had returned; a
sync of the spool's directory after it flushes them. Before Linux 5.17 the call did not report what a file system's own
`sync_fs` answered, so on such a kernel it is not used at all. An error is reported once per descriptor, to whichever
call comes next, and may be of another program's file: so after one, each file is synced by itself, and those of ours
that were lost say so. All calls go through one descriptor, that of the spool's directory, opened when the spool was.

Paying: with one call for a batch the cost hardly grows with the batch; each file by itself costs a flush of the disk's
cache. On journaled ext4, XFS and btrfs (loop devices, Linux 6.18) a batch of 64 entries, 128 files, took 3.4 to 4.3
times as long each by itself. But `syncfs` also writes what other programs have left to be written. So what both ways
cost is measured as it happens, and when `syncfs` turns out dear, it is left alone for a while.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Final

from trio_multispool.clock import stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.storage.directory.disk.layout import Layout

EXT: Final = 0xEF53
"""ext2, ext3 and ext4, by the `f_type` of statfs(2)."""

XFS: Final = 0x58465342

BTRFS: Final = 0x9123683E

TRUSTED: Final = {EXT, XFS, BTRFS}
"""The file systems whose `syncfs` is relied on."""

SMALLEST: Final = 4
"""So many files and directories, those of two entries, are worth it."""

SMALLEST_ON_XFS: Final = 3
"""There, those of one entry are: its enqueue took 0.7 times as long, where on ext4 it took longer (1.1 times) and on
btrfs the same (medians of five, loop devices, `nox -s bench -- entries`)."""

DEAR: Final = 2.0
"""Times what each file by itself would have cost: then other programs' files were written with ours."""

NOTICEABLE: Final = 0.05
"""Seconds; below that, nothing is dear..."""

NOTICEABLE_EACH: Final = 0.005
"""... nor below so many for each file and directory: a single entry that waits for others' files is soon dear."""

FIRST_PAUSE: Final = 8
"""For how many batches it is left alone when it was dear for the first time; twice as many each time after."""

LONGEST_PAUSE: Final = 512

WEIGHT: Final = 0.2
"""How much the newest measurement of what a file costs by itself counts."""


class Pace:
    """Chooses between the two ways, by what they have cost so far. Pure: it is told all it knows."""

    def __init__(self, smallest: int = SMALLEST) -> None:
        """Begin without knowing anything but how many files and directories are worth it at least."""
        self._smallest = smallest
        self._each: float | None = None
        self._pause = 0
        self._next_pause = FIRST_PAUSE

    def prefers_whole(self, needs: int) -> bool:
        """Tell whether to sync the whole file system for so many files and directories."""
        if needs < self._smallest or self._each is None:
            return False
        if self._pause:
            self._pause -= 1
            return False
        return True

    def note_each(self, needs: int, seconds: float) -> None:
        """Learn what syncing each by itself took."""
        cost = seconds / needs
        self._each = cost if self._each is None else self._each + WEIGHT * (cost - self._each)

    def note_whole(self, needs: int, seconds: float) -> None:
        """Learn what syncing the whole file system took."""
        if seconds > min(NOTICEABLE, NOTICEABLE_EACH * needs) and seconds > DEAR * needs * (self._each or 0.0):
            self.note_failure()
        else:  # not at once: a neighbour that writes now and then would make every other try dear
            self._next_pause = max(FIRST_PAUSE, self._next_pause // 2)

    def note_failure(self) -> None:
        """Leave syncing the whole file system alone for a while, longer each time."""
        self._pause = self._next_pause
        self._next_pause = min(2 * self._next_pause, LONGEST_PAUSE)


class WholeSync:
    """Syncs the file system of one spool, if it may be relied on and pays; used by one thread at a time."""

    def __init__(self, layout: Layout) -> None:
        """Look at the file system."""
        self._layout = layout
        self._kind: int | None = None
        with contextlib.suppress(OSError):  # what cannot be told is not relied on
            self._kind = layout.calls.file_system_type(layout.fd(""))
        self._usable = self._kind in TRUSTED
        self._pace = Pace(SMALLEST_ON_XFS if self._kind == XFS else SMALLEST)

    def sync(self, needs: int, sync_each: Callable[[], None]) -> None:
        """Sync so many files and directories in one call, or else by `sync_each`."""
        elapsed = stopwatch()
        if self._usable and self._pace.prefers_whole(needs):
            if self._whole():
                self._pace.note_whole(needs, elapsed())
                return
            self._pace.note_failure()
            elapsed = stopwatch()
        sync_each()
        self._pace.note_each(needs, elapsed())

    def _whole(self) -> bool:
        root = self._layout.fd("")
        try:
            self._layout.calls.sync_file_system(root)
            if self._kind == EXT:
                self._layout.calls.sync(root)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
                self._usable = False
            return False
        return True
