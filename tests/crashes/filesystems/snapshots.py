"""Power lost at every system call: the device is copied after each, and after each `Ok`, and every copy is checked.

A copy holds all that the file system has issued by then, as if it had reached the disk. Nothing is asked of it between
a call and the next, so the copy after a call is the one before the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from filesystems.checking import Checker
from filesystems.devices import make, mounted
from filesystems.images import Image
from filesystems.ledger import Ledger
from filesystems.moods import MoodyCalls
from filesystems.report import Tally
from filesystems.workload import work

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from filesystems.kinds import Kind
    from filesystems.ledger import Moment
    from filesystems.moods import Mood


class CopyingCalls(MoodyCalls):
    """The real system calls; the device is copied after each."""

    def __init__(self, device: Path, directory: Path, ledger: Ledger, mood: Mood) -> None:
        """Copy the file of a device that is mounted on a directory."""
        super().__init__(directory, mood)
        self._device = device
        self._ledger = ledger
        self.copies: list[tuple[Image, Moment]] = []
        self.copy()

    def copy(self) -> None:
        """Copy the device, and note what may be on it."""
        with self._ledger.mutex:
            previous = self.copies[-1][0] if self.copies else None
            self.copies.append((Image.read(self._device, previous), self._ledger.now))

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Make the call, one at a time, and copy."""
        with self._ledger.mutex:
            try:
                return super().around(call, arguments, perform)
            finally:
                self.copy()


def run(kind: Kind, scratch: Path, mood: Mood, *, omitted: str = "") -> Tally:
    """Do the work on a new file system, copying; then check all copies. Syncs are left out once the spool is made."""
    file, directory = scratch / "device.img", scratch / "mounted"
    directory.mkdir(exist_ok=True)
    make(kind, file)
    ledger = Ledger()
    with mounted(kind, file, directory):
        calls = CopyingCalls(file, directory, ledger, mood)

        def acknowledged() -> None:
            calls.omitted = omitted
            calls.copy()

        trio.run(work, directory / "spool", ledger, calls, acknowledged)
    tally = Tally(f"{kind.name}, {omitted or mood.name}")
    checker = Checker(kind, scratch)  # after the original is unmounted: a copy on btrfs has the same UUID
    for image, moment in calls.copies:
        tally.count(checker.problems(image, [moment]))
    tally.distinct = len({image for image, _ in calls.copies})
    return tally
