"""A device that writes down everything that it is asked to write, and every flush, in order.

It is a loop device on a file that a process of its own serves by FUSE. What the device is asked to write reaches that
process as a write of the file, and a flush of the device as an fsync of it. Each is put in the log before it is
answered, so the log's length at any time is a position in the device's history: what was answered by then is before it.

    python -m filesystems.recorder IMAGE LOG MOUNTPOINT
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

from filesystems.devices import unmount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RECORD = struct.Struct("=qq")
_FLUSH = -1
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)
NAME = "device"


@dataclasses.dataclass(frozen=True)
class Write:
    """Something was written at an offset."""

    offset: int
    content: bytes


@dataclasses.dataclass(frozen=True)
class Flush:
    """All that was written before had to be on the disk."""


class Log:
    """The log of a device, as its reader sees it."""

    def __init__(self, path: Path) -> None:
        """Read the log that is, or will be, at `path`."""
        self._path = path

    def position(self) -> int:
        """Return how long the log is at present, in bytes."""
        return self._path.stat().st_size

    def records(self) -> list[tuple[int, Write | Flush]]:
        """Return all of it, each record with the position right behind it."""
        raw, position = self._path.read_bytes(), 0
        found: list[tuple[int, Write | Flush]] = []
        while position < len(raw):
            offset, length = _RECORD.unpack_from(raw, position)
            position += _RECORD.size + length
            record = Flush() if offset == _FLUSH else Write(offset, raw[position - length : position])
            found.append((position, record))
        return found


@contextlib.contextmanager
def recorded(image: Path, log: Path, directory: Path) -> Iterator[Path]:
    """Serve an image as a file that records; yield that file."""
    log.write_bytes(b"")
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "filesystems.recorder", *map(os.fspath, (image, log, directory))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"FUSE_LIBRARY_NAME": "fuse3"}) as server:
        try:
            assert server.stdout is not None
            if server.stdout.readline() != b"serving\n":
                raise OSError("the recording file could not be served; see its standard error")  # noqa: TRY301  # as all others
            try:
                yield directory / NAME
            finally:
                unmount(directory)
        except BaseException:
            server.kill()
            raise


def serve(image: str, log: str, directory: str) -> None:
    """Serve until the directory is unmounted."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever is left would keep the mounts of the session
    import mfusepy  # it loads libfuse, which only this process needs

    data = os.open(image, os.O_RDWR)
    journal = os.open(log, os.O_WRONLY | os.O_APPEND)
    size = os.fstat(data).st_size

    class Recording(mfusepy.Operations):
        """One file."""

        use_ns = True

        def init(self, path):
            print("serving", flush=True)

        def getattr(self, path, fh=None):
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
            if path == f"/{NAME}":
                return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}
            raise mfusepy.FuseOSError(errno.ENOENT)

        def open(self, path, flags):
            return 1

        def read(self, path, size, offset, fh):
            return os.pread(data, size, offset)

        def write(self, path, content, offset, fh):
            os.writev(journal, (_RECORD.pack(offset, len(content)), content))
            return os.pwrite(data, content, offset)

        def fsync(self, path, datasync, fh):
            os.write(journal, _RECORD.pack(_FLUSH, 0))
            return 0

    mfusepy.FUSE(Recording(), directory, foreground=True, nothreads=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
