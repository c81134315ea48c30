"""All system calls of the directory store: each is a method of one small object.

No other part of the library opens, writes, moves or syncs a file. A test gives the store its own `SystemCalls`, which
records calls, makes one fail, or kills the process at the n-th.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import math
import os
import re
import struct
import sys
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_DARWIN = sys.platform == "darwin"
_RENAME_NOREPLACE = 1  # linux/fs.h
_RENAME_EXCHANGE = 2
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
_FLOCK = "hhqqi0q"  # struct flock of Linux, aligned as in C: type, whence, start, length, process
_F_FULLFSYNC = 51  # sys/fcntl.h of macOS, where fsync() does not reach the disk
_SYNCFS_REPORTS_SINCE = (5, 17)  # when sync_filesystem() began to return what sync_fs() does
_STATFS_BYTES = 512  # more than any struct statfs; f_type is its first word on Linux

_FILE_SYSTEM = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

_libc = ctypes.CDLL(None, use_errno=True)
_syncfs: Callable[[int], int] | None = getattr(_libc, "syncfs", None)
_sync_file_range = getattr(_libc, "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_renameat2 = getattr(_libc, "renameat2", None)
if _renameat2 is not None:
    _renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]


class Notice(Protocol):
    """One event of inotify(7)."""

    wd: int
    """The number of the watch that reports it."""
    mask: int
    """What happened."""
    name: str
    """The name in the watched directory; empty for the directory itself."""


class Notifier(Protocol):
    """An inotify instance."""

    def fileno(self) -> int:
        """Return its descriptor."""
        ...

    def add_watch(self, path: str, mask: int) -> int:
        """`inotify_add_watch`."""
        ...

    def rm_watch(self, wd: int) -> None:
        """`inotify_rm_watch`."""
        ...

    def read(self, timeout: int) -> Sequence[Notice]:
        """`read`; waits for at most `timeout` milliseconds."""
        ...

    def close(self) -> None:
        """`close`."""
        ...


class SystemCalls:
    """The plain system calls: they raise `OSError`, take directory descriptors, and never follow a symlink."""

    def open(self, name: str, flags: int, directory: int | None = None, mode: int = 0o600) -> int:
        """`openat` without following a symlink in the last component, closed on exec."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)

    def open_root(self, path: str) -> int:
        """`open` of the spool's own directory; its path may be a symlink."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    close: staticmethod[[int], None] = staticmethod(os.close)
    """`close`."""

    read: staticmethod[[int, int], bytes] = staticmethod(os.read)
    """`read`."""

    write: staticmethod[[int, bytes | memoryview], int] = staticmethod(os.write)
    """`write`; it may write only a part."""

    def seek(self, fd: int, offset: int, whence: int) -> int:
        """`lseek`."""
        return os.lseek(fd, offset, whence)

    def truncate(self, fd: int, size: int) -> None:
        """`ftruncate`."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """`fsync` of a file or directory, down to the disk."""
        if _DARWIN:
            _ = fcntl.fcntl(fd, _F_FULLFSYNC)
        else:
            os.fsync(fd)

    def write_out(self, fd: int) -> None:
        """`sync_file_range` with `SYNC_FILE_RANGE_WRITE`: begin to write a file to disk, without waiting for it.

        A hint before `sync`, which does all of it. Does nothing if there is no such call.
        """
        if _sync_file_range is not None and _sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE) != 0:
            code = ctypes.get_errno()
            if code != errno.ENOSYS:
                raise OSError(code, os.strerror(code))

    def sync_file_system(self, fd: int) -> None:
        """`syncfs` of the descriptor's file system: syncs all files and directories that were written before.

        ENOSYS if there is no such call, or if it does not report failed writes (see `syncs/whole.py`).
        """
        if _syncfs is None or not _reports_lost_writes():
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if _syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def stat(self, name: str, directory: int) -> os.stat_result:
        """`fstatat` of the name itself; does not follow a symlink."""
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def stat_path(self, path: str) -> os.stat_result:
        """`stat` of the spool's own directory, by its path, which may be a symlink."""
        return os.stat(path)

    stat_fd: staticmethod[[int], os.stat_result] = staticmethod(os.fstat)
    """`fstat`."""

    change_mode: staticmethod[[int, int], None] = staticmethod(os.fchmod)
    """`fchmod`: unlike with `open`, the umask does not apply."""

    def change_owner(self, fd: int, user: int, group: int) -> None:
        """`fchown`; -1 leaves the user or the group as it is."""
        os.fchown(fd, user, group)

    def set_modified(self, fd: int, when: float) -> None:
        """`futimens`: sets the modification time, in seconds since 1970; keeps the access time.

        It is rounded up to nanoseconds, so that `fstat` tells the same number again.
        """
        whole = math.floor(when)
        modified = whole * 1_000_000_000 + math.ceil((when - whole) * 1_000_000_000)
        os.utime(fd, ns=(os.fstat(fd).st_atime_ns, modified))

    def touch(self, name: str, directory: int) -> None:
        """`utimensat` of the name itself, with the time of the kernel: sets its access and modification times."""
        os.utime(name, dir_fd=directory, follow_symlinks=False)

    def make_directory(self, name: str, directory: int | None, mode: int) -> None:
        """`mkdirat`."""
        os.mkdir(name, mode, dir_fd=directory)

    def remove_directory(self, name: str, directory: int) -> None:
        """`unlinkat` with `AT_REMOVEDIR`: ENOTEMPTY unless it is empty."""
        os.rmdir(name, dir_fd=directory)

    def unlink(self, name: str, directory: int) -> None:
        """`unlinkat`."""
        os.unlink(name, dir_fd=directory)

    def move(self, name: str, directory: int, new_name: str, new_directory: int) -> None:
        """`renameat2` with `RENAME_NOREPLACE`: EEXIST if the new name exists.

        If the kernel or the file system cannot refuse to replace, uses `linkat` and `unlinkat`. A kill between them
        leaves the file under both names, which recovery resolves.
        """
        if not self._rename(name, directory, new_name, new_directory, _RENAME_NOREPLACE):
            os.link(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory, follow_symlinks=False)
            os.unlink(name, dir_fd=directory)

    def exchange(self, name: str, directory: int, other_name: str, other_directory: int) -> None:
        """`renameat2` with `RENAME_EXCHANGE`: ENOENT unless both exist.

        If there is no exchange, checks that the target exists, then calls a plain `renameat`.
        """
        if not self._rename(name, directory, other_name, other_directory, _RENAME_EXCHANGE):
            _ = os.stat(other_name, dir_fd=other_directory, follow_symlinks=False)
            os.rename(name, other_name, src_dir_fd=directory, dst_dir_fd=other_directory)

    def _rename(self, name: str, directory: int, new_name: str, new_directory: int, flag: int) -> bool:
        if _renameat2 is None:
            return False
        raw = name.encode(*_FILE_SYSTEM)
        new_raw = raw if new_name == name else new_name.encode(*_FILE_SYSTEM)
        if _renameat2(directory, raw, new_directory, new_raw, flag) == 0:
            return True
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS):
            return False
        raise OSError(code, os.strerror(code), name, None, new_name)

    def lock(self, fd: int) -> None:
        """`flock` with `LOCK_EX | LOCK_NB`: raises `BlockingIOError` if another descriptor holds it."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock(self, fd: int) -> None:
        """`flock` with `LOCK_UN`."""
        fcntl.flock(fd, fcntl.LOCK_UN)

    def lock_byte(self, fd: int, number: int) -> None:
        """`fcntl` with `F_OFD_SETLK`, for writing: raises `BlockingIOError` if another description has that byte.

        ENOSYS if there are no such locks.
        """
        self._set_lock(fd, number, fcntl.F_WRLCK)

    def unlock_byte(self, fd: int, number: int) -> None:
        """`fcntl` with `F_OFD_SETLK`, to unlock."""
        self._set_lock(fd, number, fcntl.F_UNLCK)

    @staticmethod
    def _set_lock(fd: int, number: int, kind: int) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        try:
            _ = fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, number, 1, 0))
        except PermissionError as error:  # EACCES says the same as EAGAIN (fcntl(2))
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def names(self, fd: int) -> list[str]:
        """`getdents` of a freshly opened directory, to its end: all names, even those that are not valid UTF-8."""
        return os.listdir(fd)

    def regular_files(self, fd: int) -> list[str]:
        """`getdents` to the end, for the names of regular files only."""
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]

    def directories(self, fd: int) -> dict[str, int]:
        """`getdents` to the end, for the names of directories only, with their inode numbers."""
        with os.scandir(fd) as entries:
            return {entry.name: entry.inode() for entry in entries if entry.is_dir(follow_symlinks=False)}

    def scan(self, fd: int) -> Iterator[tuple[str, bool, bool]]:
        """`getdents` piece by piece: each name, whether it is a regular file, and whether it is a directory.

        The descriptor must stay open until the end.
        """
        with os.scandir(fd) as entries:
            for entry in entries:
                yield entry.name, entry.is_file(follow_symlinks=False), entry.is_dir(follow_symlinks=False)

    def notify(self) -> Notifier:
        """`inotify_init1`, close-on-exec; the returned object has its watches and reads."""
        import inotify_simple  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]  # noqa: PLC0415

        return cast("Notifier", inotify_simple.INotify(nonblocking=True))

    def file_system_type(self, fd: int) -> int | None:
        """`fstatfs`: the number of the kind of file system; `None` if there is no such number."""
        if not sys.platform.startswith("linux"):
            return None
        buffer = ctypes.create_string_buffer(_STATFS_BYTES)
        if _libc.fstatfs(fd, buffer) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def _reports_lost_writes() -> bool:
    """Tell whether `syncfs` reports all failures: those of pages since Linux 5.8, of the journal or log since 5.17."""
    if not sys.platform.startswith("linux"):
        return False
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return found is not None and (int(found[1]), int(found[2])) >= _SYNCFS_REPORTS_SINCE
