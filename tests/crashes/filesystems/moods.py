"""What else goes on while a spool is used: it decides what a file system has issued at any moment, and in which order.

A neighbour, a program that syncs a file of its own now and then, makes a journal take along what others have left
unsynced, in part: names without contents, one of two renames.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import random
import stat
from typing import TYPE_CHECKING, Any

from helpers.syscalls import HookedCalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

SYNCS_OF_FILES, SYNCS_OF_DIRECTORIES, ALL_SYNCS = "no syncs of files", "no syncs of directories", "no syncs"
"""What can be left out."""

NEIGHBOUR_SYNCS_ONE_IN = 6
COMMITTER_COMMITS_ONE_IN = 10


@dataclasses.dataclass
class Mood:
    """Something that goes on; `act` is called after every system call, with the mounted directory."""

    name: str
    act: Callable[[Path], None]


def quiet() -> Mood:
    """Nothing goes on."""
    return Mood("quiet", lambda directory: None)


def neighbour(seed: int) -> Mood:
    """Another program syncs its own file, after about one call in six."""
    chance = random.Random(seed)

    def act(directory: Path) -> None:
        if chance.randrange(NEIGHBOUR_SYNCS_ONE_IN) == 0:
            with open(directory / "neighbour", "ab") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())

    return Mood(f"neighbour, seed {seed}", act)


def committer(seed: int) -> Mood:
    """Everything is written out after about one call in ten, as the kernel does by itself every few seconds."""
    chance = random.Random(seed)

    def act(directory: Path) -> None:
        if chance.randrange(COMMITTER_COMMITS_ONE_IN) == 0:
            write_everything_out(directory)

    return Mood(f"committer, seed {seed}", act)


def eager() -> Mood:
    """Everything is written out after every call."""
    return Mood("eager", write_everything_out)


def write_everything_out(directory: Path) -> None:
    """`syncfs`."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if _libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(descriptor)


class MoodyCalls(HookedCalls):
    """The real system calls, in a mood."""

    def __init__(self, directory: Path, mood: Mood) -> None:
        """Act on a mounted directory."""
        self._directory = directory
        self._mood = mood
        self.omitted = ""
        """Which syncs do nothing, if any."""

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Make the call, and act."""
        try:
            return None if self._omits(call, arguments) else perform()
        finally:
            self._mood.act(self._directory)

    def _omits(self, call: str, arguments: tuple[Any, ...]) -> bool:
        if call == "sync_file_system":
            return bool(self.omitted)
        if call != "sync" or not self.omitted:
            return False
        is_directory = stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
        return self.omitted in (ALL_SYNCS, SYNCS_OF_DIRECTORIES if is_directory else SYNCS_OF_FILES)
