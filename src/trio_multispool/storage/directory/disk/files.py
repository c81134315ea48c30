"""Reading and writing single files through the injected system calls."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from typing import TYPE_CHECKING, Final

import msgspec

from trio_multispool.errors import OF_ONE_FILE, NotARegularFile, SpoolError
from trio_multispool.model.notes import LARGEST
from trio_multispool.storage.directory.disk.layout import NEW_FILE, READ_FILE, Layout
from trio_multispool.storage.directory.disk.oserrors import as_spool_error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import BinaryIO, Self

    from typing_extensions import Buffer

    from trio_multispool.model.types import T
    from trio_multispool.storage.directory.disk.syscalls import SystemCalls
    from trio_multispool.storage.requests import Content


CHUNK = 256 * 1024
"""How much is read or written at a time, in bytes: so much that copying costs far more than the calls."""

_LATER: Final = (0.0, 1e-5, 0.01, 1.0, 2.0)
"""How many seconds to add, so that a file system that rounds down keeps no earlier time. FAT keeps even seconds."""


def read_file(layout: Layout, directory: str, name: str) -> bytes:
    """Return the whole of a regular file; raises `FileNotFoundError` if it is gone, and a `SpoolError` otherwise."""
    content, _ = read_file_and_stat(layout, directory, name)
    return content


def read_file_and_stat(layout: Layout, directory: str, name: str) -> tuple[bytes, os.stat_result]:
    """Return the whole of a regular file, and its `fstat`; raises what `read_file` raises."""
    calls, doing, fd = layout.calls, "open", -1
    try:
        fd = calls.open(name, READ_FILE, layout.fds[directory])
        doing = "look at"
        found = calls.stat_fd(fd)
        if not stat.S_ISREG(found.st_mode):
            raise NotARegularFile(layout.full(directory, name))
        doing = "read"
        content = calls.read(fd, min(found.st_size, CHUNK) or CHUNK)
        if len(content) != found.st_size:  # large, or somebody appends to it
            content = _read_on(fd, content, calls)
        return content, found  # as in a `with` block
    except OSError as error:
        if doing == "open" and isinstance(error, FileNotFoundError):
            raise
        raise as_spool_error(error, doing, layout.full(directory, name)) from error
    finally:
        if fd >= 0:
            layout.close_fd(fd)


UNREADABLE: Final = (ValueError, *OF_ONE_FILE)
"""What reading and decoding a file beside entries raises about that file, and not about the whole store."""


def read_beside(layout: Layout, directory: str, name: str) -> bytes:
    """Return a file that lies beside entries; of one that is too large to be decoded, only the beginning.

    Raises what `read_file` raises.
    """
    content = b""
    with Opened(layout, directory, name) as (fd, found), layout.doing("read", directory, name):
        size = min(found.st_size, LARGEST + 1)
        while len(content) < size and (chunk := layout.calls.read(fd, min(size - len(content), CHUNK))):
            content += chunk
    return content


def no_directory(layout: Layout, directory: str) -> NotARegularFile | None:
    """Return what to say if something else lies in the place of a directory; `None` if nobody can say that it does."""
    try:
        return NotARegularFile(layout.full(directory), directory=True) if layout.holds_nothing(directory) else None
    except OF_ONE_FILE:
        return None


@contextlib.contextmanager
def wanting_directory(layout: Layout, directory: str) -> Generator[None]:
    """Raise `NotARegularFile` with the path to clear if the block fails because something else is there."""
    try:
        yield
    except OF_ONE_FILE as error:
        instead = no_directory(layout, directory)
        if instead is None:
            raise
        raise instead from error


def _read_on(fd: int, content: bytes, calls: SystemCalls) -> bytes:
    """Read a file to its end, after `content`."""
    chunks = [content]
    while chunk := calls.read(fd, CHUNK):
        chunks.append(chunk)
    return b"".join(chunks)


class Opened(msgspec.Struct, eq=False):
    """A regular file, open for reading in a block, which gets its descriptor and its `fstat`.

    Raises `FileNotFoundError` if it is gone, and a `SpoolError` otherwise. A class for speed, like `Doing`.
    """

    layout: Layout
    directory: str
    name: str
    fd: int = -1

    def __enter__(self) -> tuple[int, os.stat_result]:
        layout, calls = self.layout, self.layout.calls
        try:
            self.fd = calls.open(self.name, READ_FILE, layout.fds[self.directory])
        except FileNotFoundError:
            raise
        except OSError as error:
            raise as_spool_error(error, "open", layout.full(self.directory, self.name)) from error
        try:
            found = calls.stat_fd(self.fd)
        except OSError as error:
            layout.close_fd(self.fd)
            raise as_spool_error(error, "look at", layout.full(self.directory, self.name)) from error
        if not stat.S_ISREG(found.st_mode):
            layout.close_fd(self.fd)
            raise NotARegularFile(layout.full(self.directory, self.name))
        return self.fd, found

    def __exit__(self, *raised: object) -> None:
        self.layout.close_fd(self.fd)


def read_through(layout: Layout, directory: str, name: str, read: Callable[[BinaryIO], T]) -> T:
    """Call `read` with a file; return its result. Raises `FileNotFoundError`, a `SpoolError`, or what it raises."""
    with Opened(layout, directory, name) as (fd, _):
        raw = _File(fd, layout.calls, writable=False)
        try:
            return read(io.BufferedReader(raw, CHUNK))
        finally:
            _raise_own_failure(raw, layout, "read", directory, name)


class OpenFile(msgspec.Struct, eq=False):
    """A file that was just written, and is open for its sync.

    It is undone if a `with` block on it raises. Otherwise it stays open.
    """

    layout: Layout
    directory: str
    name: str
    fd: int
    owned: bool
    """Whether the descriptor is closed with it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            self.undo(because=error)

    def sync(self) -> None:
        """Sync it, down to the disk."""
        with self.layout.doing("sync", self.directory, self.name):
            self.layout.calls.sync(self.fd)

    def set_modified(self, when: float) -> bool:
        """Set its modification time, in seconds since 1970; call this before `sync`. Tell whether it is kept.

        It is rounded up to what the file system keeps: `when`, or up to two seconds later.
        """
        calls = self.layout.calls
        with self.layout.doing("set the time of", self.directory, self.name):
            for more in _LATER:
                calls.set_modified(self.fd, when + more)
                if when <= calls.stat_fd(self.fd).st_mtime <= when + _LATER[-1]:
                    return True
        return False

    def write_out(self) -> None:
        """Begin to write it to disk; `sync` waits for the end."""
        with self.layout.doing("write out", self.directory, self.name):
            self.layout.calls.write_out(self.fd)

    def close(self) -> None:
        """Close it. Idempotent. Raises a `SpoolError`: an error here is a failed write."""
        if self.owned:
            self.owned = False
            try:
                self.layout.calls.close(self.fd)
            except OSError as error:
                raise as_spool_error(error, "close", self.layout.full(self.directory, self.name)) from error

    def undo(self, *, because: BaseException) -> None:
        """Close and unlink it, while `because` is being raised."""
        try:
            self.close()
        except SpoolError as error:
            because.add_note(f"it could not be closed either: {error}")
        discard(self.layout, self.directory, self.name, because=because)


def begin_new(layout: Layout, directory: str, name: str, content: Content, *, fd: int | None = None) -> OpenFile:
    """Make a file with that content, and return it open. On failure, unlink it again.

    Raises a `SpoolError`, or what writing the content raises. With `fd`, fill a file that was just made, and never
    close it.
    """
    try:
        mine = layout.calls.open(name, NEW_FILE, layout.fds[directory], layout.file_mode) if fd is None else fd
    except OSError as error:
        raise as_spool_error(error, "create", layout.full(directory, name)) from error
    file, doing = OpenFile(layout, directory, name, mine, owned=fd is None), "set the mode of"
    try:
        if fd is None and layout.owner is None:
            layout.calls.change_mode(mine, layout.file_mode)
        elif fd is None:
            layout.hand_over(mine, layout.file_mode, directory, name)
        doing = "write"
        if isinstance(content, bytes):
            left = len(content)
            while left:
                left -= layout.calls.write(mine, memoryview(content)[-left:])
        else:
            doing = ""
            _fill(layout, directory, name, mine, content)
    except BaseException as error:  # passed on: whatever it was, there is no such file
        told = error
        if doing and isinstance(error, OSError):
            told = as_spool_error(error, doing, layout.full(directory, name))
        file.undo(because=told)
        if told is error:
            raise
        raise told from error
    return file


def write_new(layout: Layout, directory: str, name: str, content: Content) -> None:
    """Make a file as `begin_new` does, and close it."""
    with begin_new(layout, directory, name, content) as file:
        file.close()


def discard(layout: Layout, directory: str, name: str, *, because: BaseException) -> None:
    """Unlink a file that this operation made, while `because` is being raised.

    On failure, add a note to that exception: the file belongs to no entry, and recovery will collect it.
    """
    try:
        layout.calls.unlink(name, layout.fds[directory])
    except FileNotFoundError:
        return
    except OSError as error:
        because.add_note(f"{layout.full(directory, name)} could not be removed ({error}); recovery will collect it")


def unlink_if_there(layout: Layout, directory: str, name: str) -> None:
    """Unlink a file that may be gone, in a directory that may be missing."""
    try:
        layout.calls.unlink(name, layout.fds[directory])
    except FileNotFoundError:
        return
    except OSError as error:
        raise as_spool_error(error, "remove", layout.full(directory, name)) from error


def _fill(layout: Layout, directory: str, name: str, fd: int, write: Callable[[BinaryIO], None]) -> None:
    raw = _File(fd, layout.calls, writable=True)
    buffered = io.BufferedWriter(raw, CHUNK)
    try:
        write(buffered)
        if not buffered.closed:
            buffered.flush()
    except BaseException:  # passed on: whatever it was
        raw.deaf = True  # drop the rest of the buffer: it must not be written at garbage collection
        raise
    finally:
        _raise_own_failure(raw, layout, "write", directory, name)


def _raise_own_failure(raw: _File, layout: Layout, operation: str, directory: str, name: str) -> None:
    """Raise the file's own error: it matters more than the error that the codec made of it."""
    if raw.failure is not None:
        raise as_spool_error(raw.failure, operation, layout.full(directory, name)) from raw.failure


class _File(io.RawIOBase):
    """A file descriptor as a raw binary file. Closing this leaves the descriptor open, for the library."""

    def __init__(self, fd: int, calls: SystemCalls, *, writable: bool) -> None:
        self._fd = fd
        self._calls = calls
        self._writable = writable
        self.failure: OSError | None = None
        self.deaf = False

    def readable(self) -> bool:
        return not self._writable

    def writable(self) -> bool:
        return self._writable

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def readinto(self, buffer: Buffer, /) -> int:
        with self._remembering():
            view = memoryview(buffer)
            chunk = self._calls.read(self._fd, len(view))
            view[: len(chunk)] = chunk
            return len(chunk)

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data)
        if self.deaf:
            return len(view)
        with self._remembering():
            return self._calls.write(self._fd, view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with self._remembering():
            return self._calls.seek(self._fd, offset, whence)

    def truncate(self, size: int | None = None) -> int:
        with self._remembering():
            length = self.tell() if size is None else size
            self._calls.truncate(self._fd, length)
            return length

    @contextlib.contextmanager
    def _remembering(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise
