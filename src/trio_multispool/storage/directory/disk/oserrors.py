"""Turns each `OSError` into an error of this library."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from trio_multispool.errors import (
    AccessDenied,
    NotARegularFile,
    OutOfSpace,
    ReadOnlySpool,
    SeveralFileSystems,
    StorageFailure,
    TooManyOpenFiles,
)

if TYPE_CHECKING:
    from trio_multispool.errors import SpoolError

_NO_ROOM: Final = {
    errno.ENOSPC: "the disk is full, out of inodes, or the directory full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file would be larger than allowed",
}
_NO_DESCRIPTOR: Final = {
    errno.EMFILE: "this process has no file descriptor left (EMFILE)",
    errno.ENFILE: "the system has no file descriptor left (ENFILE)",
}


def as_spool_error(error: OSError, operation: str, path: str) -> SpoolError:
    """Return the `SpoolError` for `error`, which arose from `operation` on `path`."""
    code = error.errno or 0
    translated: SpoolError
    if code in _NO_ROOM:
        translated = OutOfSpace(operation, path, _NO_ROOM[code])
    elif code in _NO_DESCRIPTOR:
        translated = TooManyOpenFiles(operation, _NO_DESCRIPTOR[code])
    elif code in (errno.EACCES, errno.EPERM):
        translated = AccessDenied(operation, path)
    elif code == errno.EROFS:
        translated = ReadOnlySpool(operation, path)
    elif code == errno.EXDEV:
        translated = SeveralFileSystems(os.path.dirname(path), os.path.basename(path))
    elif code in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
        translated = NotARegularFile(path)
    else:
        translated = StorageFailure(operation, path, code)
    translated.__cause__ = error
    return translated
