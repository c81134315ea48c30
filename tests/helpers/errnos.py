"""Which errors each system call can answer, by its manual page; and what the library is to make of them.

Left out of every row, with the reason:

- EBADF, EFAULT, EINVAL of bad arguments, ESPIPE, EDESTADDRREQ: bugs of the caller, not faults.
- EINTR: Python calls again by itself (PEP 475), and the calls made through ctypes do not answer it.
- ENOENT, EEXIST, EWOULDBLOCK of `flock`: the protocol's own answers (gone, taken, busy), with tests of their own.
- EINVAL and ENOSYS of `renameat2` and `sync_file_range`: `SystemCalls` does without the flag, or the call.
- ENODEV, ETXTBSY, EOVERFLOW, EOPNOTSUPP, ENOTEMPTY: not for regular files and directories, or not on 64 bits.
- ESTALE, ETIMEDOUT and the like: network mounts, which are refused.

EIO stands in rows whose page does not name it: any call that goes to the disk can meet a bad sector.
"""

from __future__ import annotations

import errno as e
from typing import TYPE_CHECKING, NamedTuple

from trio_multispool import (
    AccessDenied,
    NotARegularFile,
    OutOfSpace,
    ReadOnlySpool,
    StorageFailure,
    TooManyOpenFiles,
)
from trio_multispool.errors import SeveralFileSystems

if TYPE_CHECKING:
    from trio_multispool import SpoolError


class Row(NamedTuple):
    """The errors of one system call."""

    page: str
    errnos: tuple[int, ...]


_OPEN = (e.EACCES, e.EAGAIN, e.EIO, e.ELOOP, e.EMFILE, e.ENFILE, e.ENOMEM, e.ENOTDIR, e.ENXIO, e.EPERM)

ERRNOS = {
    "open": Row("open(2)", _OPEN),
    "create": Row("open(2)", (*_OPEN, e.EBUSY, e.EDQUOT, e.EINVAL, e.EISDIR, e.ENAMETOOLONG, e.ENOSPC, e.EROFS)),
    "open_root": Row("open(2)", _OPEN),
    "read": Row("read(2)", (e.EIO, e.EISDIR)),
    "write": Row("write(2)", (e.EDQUOT, e.EFBIG, e.EIO, e.ENOSPC, e.EPERM)),
    "sync": Row("fsync(2)", (e.EDQUOT, e.EIO, e.ENOSPC, e.EROFS)),
    "sync_file_system": Row("syncfs(2)", (e.EDQUOT, e.EIO, e.ENOSPC)),
    "write_out": Row("sync_file_range(2)", (e.EIO, e.ENOMEM, e.ENOSPC)),
    "stat": Row("fstatat(2)", (e.EACCES, e.EIO, e.ELOOP, e.ENAMETOOLONG, e.ENOMEM, e.ENOTDIR)),
    "stat_path": Row("stat(2)", (e.EACCES, e.EIO, e.ELOOP, e.ENAMETOOLONG, e.ENOMEM)),  # ENOTDIR: the spool is gone
    "stat_fd": Row("fstat(2)", (e.EIO, e.ENOMEM)),
    "change_mode": Row("fchmod(2)", (e.EIO, e.ENOMEM, e.EPERM, e.EROFS)),
    "change_owner": Row("fchown(2)", (e.EDQUOT, e.EIO, e.ENOMEM, e.EPERM, e.EROFS)),
    "set_modified": Row("utimensat(2)", (e.EACCES, e.EIO, e.ENOMEM, e.EPERM, e.EROFS)),
    "touch": Row("utimensat(2)", (e.EACCES, e.EIO, e.ELOOP, e.ENOMEM, e.ENOTDIR, e.EPERM, e.EROFS)),
    "make_directory": Row(
        "mkdir(2)",
        (e.EACCES, e.EDQUOT, e.EIO, e.EMLINK, e.ENAMETOOLONG, e.ENOMEM, e.ENOSPC, e.ENOTDIR, e.EPERM, e.EROFS),
    ),
    "remove_directory": Row("rmdir(2)", (e.EACCES, e.EBUSY, e.EIO, e.ENOMEM, e.ENOTEMPTY, e.EPERM, e.EROFS)),
    "unlink": Row(
        "unlink(2)",
        (e.EACCES, e.EBUSY, e.EIO, e.EISDIR, e.ELOOP, e.ENAMETOOLONG, e.ENOMEM, e.ENOTDIR, e.EPERM, e.EROFS),
    ),
    "move": Row(
        "rename(2)",
        (
            *(e.EACCES, e.EBUSY, e.EDQUOT, e.EIO, e.EISDIR, e.ELOOP, e.EMLINK, e.ENAMETOOLONG, e.ENOMEM),
            *(e.ENOSPC, e.ENOTDIR, e.EPERM, e.EROFS, e.EXDEV),
        ),
    ),
    "lock": Row("flock(2)", (e.ENOLCK,)),
    "lock_byte": Row("fcntl(2)", (e.ENOLCK,)),
    "names": Row("getdents(2)", (e.EIO, e.EMFILE, e.ENOMEM, e.ENOTDIR)),  # EMFILE, ENOMEM: listing duplicates it
    "file_system_type": Row("fstatfs(2)", (e.EIO, e.ENOMEM)),
    "seek": Row("lseek(2)", (e.ENXIO,)),
    "truncate": Row("ftruncate(2)", (e.EFBIG, e.EIO, e.EPERM)),
}
ERRNOS["exchange"] = ERRNOS["move"]
ERRNOS["regular_files"] = ERRNOS["scan"] = ERRNOS["directories"] = ERRNOS["names"]

CHANGING = (
    *("create", "write", "sync", "write_out", "change_mode", "change_owner", "set_modified", "make_directory"),
    *("unlink", "remove_directory", "move", "exchange"),
)
"""Calls that can have had their effect, or part of it, when they report an error."""

LATE = (e.EDQUOT, e.EFBIG, e.EIO, e.ENOMEM, e.ENOSPC)
"""Errors that can be met after a part of the work was done; the others come from looking before it is begun."""

_CLASSES: dict[int, type[SpoolError]] = {
    **dict.fromkeys((e.ENOSPC, e.EDQUOT, e.EFBIG), OutOfSpace),
    **dict.fromkeys((e.EMFILE, e.ENFILE), TooManyOpenFiles),
    **dict.fromkeys((e.EACCES, e.EPERM), AccessDenied),
    **dict.fromkeys((e.ELOOP, e.EISDIR, e.ENXIO), NotARegularFile),
    e.EROFS: ReadOnlySpool,
    e.EXDEV: SeveralFileSystems,
}


def class_of(code: int) -> type[SpoolError]:
    """Return the error that says what an errno says."""
    return _CLASSES.get(code, StorageFailure)
