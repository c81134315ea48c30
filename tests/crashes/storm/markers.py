"""Markers outside the spool: whoever works on an entry holds that of its name, so that two owners at once are seen.

A marker is a file with a POSIX record lock, and not `flock`, for two reasons. The kernel tells who holds it, as it does
not for `flock`; and it drops record locks while it closes the descriptors of a process that dies, and `flock` locks
only after that. So an entry that has become free has a marker that is free, or its holder is past all work and just
dying, which its flags say. Record locks do not keep tasks of one process apart; a table of names does.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_FLOCK: Final = "@hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, and the holder's process
_EXITING: Final = 0x4  # PF_EXITING, linux/sched.h
_DIGITS: Final = 10


class TwoOwnersError(Exception):
    """Somebody else is at work on the entry."""


class Markers:
    """The markers of all names, in a directory."""

    def __init__(self, directory: Path) -> None:
        """Hold none."""
        self._directory = directory
        self._held: dict[str, int] = {}

    def hold(self, name: str) -> int:
        """Hold a name's marker until `let_go`; return the number of the turn that begins, counted in the marker."""
        if name in self._held:
            raise TwoOwnersError(f"another task of process {os.getpid()}")
        fd = os.open(self._directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._held[name] = fd
        try:
            _lock(fd)
            turn = int(os.pread(fd, _DIGITS, 0) or b"0") + 1
            os.pwrite(fd, f"{turn:0{_DIGITS}}".encode(), 0)
        except BaseException:
            self.let_go(name)
            raise
        return turn

    def let_go(self, name: str) -> None:
        """Let go; before the entry is settled, for then the next owner may be quicker."""
        os.close(self._held.pop(name))


def _lock(fd: int) -> None:
    while not _locked(fd):
        holder = _holder(fd)
        if holder is not None and not _is_exiting(holder):
            raise TwoOwnersError(f"process {holder}")


def _locked(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> int | None:
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, process = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else process


def _is_exiting(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[0] in b"ZX" or bool(int(fields[6]) & _EXITING)
