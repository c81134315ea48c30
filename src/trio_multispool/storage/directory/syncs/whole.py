"""One `syncfs` for all files and directories of a batch, if that is safe and pays.

Safe: only on file systems whose `syncfs` was seen to bring everything to the disk, and to report what it could not
write. On overlayfs it returned 0 for lost data. So the list has only file systems that were tried. ext4 has the same
number with and without a journal. Without one, writes were seen in the disk's cache after `syncfs` had returned; a sync
of the spool's directory after it flushes them. Before Linux 5.17 the call did not report the answer of the file
system's own `sync_fs`, so on such a kernel it is not used at all. An error is reported once per descriptor, to the next
call, and may be about another program's file. So after an error, each file is synced separately, and each lost file of
ours reports its own error. All calls use one descriptor, that of the spool's directory, opened with the spool.

Pays: with one call for a batch, the cost hardly grows with the batch. Each file synced separately costs a flush of the
disk's cache. On journaled ext4, XFS and btrfs (loop devices, Linux 6.18), a batch of 64 entries, 128 files, took 3.4 to
4.3 times as long with separate syncs. But `syncfs` also writes what other programs have not yet written. So the cost of
both ways is measured during use. If `syncfs` turns out expensive, it is not used for a while.
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
"""The file systems whose `syncfs` is trusted."""

SMALLEST: Final = 4
"""The least number of files and directories that is worth it: those of two entries."""

SMALLEST_ON_XFS: Final = 3
"""On XFS, those of one entry are worth it: its enqueue took 0.7 times as long. On ext4 it took longer (1.1 times), on
btrfs the same (medians of five, loop devices, `nox -s bench -- entries`)."""

DEAR: Final = 2.0
"""This many times the cost of separate syncs is expensive: then other programs' files were written with ours."""

NOTICEABLE: Final = 0.05
"""In seconds; less is never expensive..."""

NOTICEABLE_EACH: Final = 0.005
"""... nor is less than this for each file and directory: one entry that waits for others' files is soon expensive."""

FIRST_PAUSE: Final = 8
"""For how many batches `syncfs` is not used after it was expensive once; twice as many each time after that."""

LONGEST_PAUSE: Final = 512

WEIGHT: Final = 0.2
"""The weight of the newest measurement in the cost of one separate sync."""


class Pace:
    """Chooses between the two ways, by their cost so far. Pure: the caller tells it all measurements."""

    def __init__(self, smallest: int = SMALLEST) -> None:
        """Begin without measurements; `smallest` is the least number of files and directories that is worth it."""
        self._smallest = smallest
        self._each: float | None = None
        self._pause = 0
        self._next_pause = FIRST_PAUSE

    def prefers_whole(self, needs: int) -> bool:
        """Tell whether to sync the whole file system for this number of files and directories."""
        if needs < self._smallest or self._each is None:
            return False
        if self._pause:
            self._pause -= 1
            return False
        return True

    def note_each(self, needs: int, seconds: float) -> None:
        """Note how long separate syncs took."""
        cost = seconds / needs
        self._each = cost if self._each is None else self._each + WEIGHT * (cost - self._each)

    def note_whole(self, needs: int, seconds: float) -> None:
        """Note how long a sync of the whole file system took."""
        if seconds > min(NOTICEABLE, NOTICEABLE_EACH * needs) and seconds > DEAR * needs * (self._each or 0.0):
            self.note_failure()
        else:  # not at once: a program that writes now and then would make every second try expensive
            self._next_pause = max(FIRST_PAUSE, self._next_pause // 2)

    def note_failure(self) -> None:
        """Stop syncing the whole file system for a while, longer each time."""
        self._pause = self._next_pause
        self._next_pause = min(2 * self._next_pause, LONGEST_PAUSE)


class WholeSync:
    """Syncs the file system of one spool, if that is safe and pays; used by one thread at a time."""

    def __init__(self, layout: Layout) -> None:
        """Look at the file system."""
        self._layout = layout
        self._kind: int | None = None
        with contextlib.suppress(OSError):  # an unknown kind is not trusted
            self._kind = layout.calls.file_system_type(layout.fds[""])
        self._usable = self._kind in TRUSTED
        self._pace = Pace(SMALLEST_ON_XFS if self._kind == XFS else SMALLEST)

    def sync(self, needs: int, sync_each: Callable[[], None]) -> None:
        """Sync this number of files and directories in one call, or else call `sync_each`."""
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
        root = self._layout.fds[""]
        try:
            self._layout.calls.sync_file_system(root)
            if self._kind == EXT:
                self._layout.calls.sync(root)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
                self._usable = False
            return False
        return True
