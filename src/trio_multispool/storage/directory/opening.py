"""Opening a spool directory, making one, and refusing a directory that cannot safely be one.

Making: write a mark first (`.spool.json.new`, synced), then make all directories (synced, the parent too). Then rename
the mark to `.spool.json`, never replacing, and sync the root. The mark shows a creation that died half-way. The next
process that creates the spool finishes it; several may do so at once. A spool that is not to be adopted is made
without a mark: nothing in it may be strange to programs that take no locks.

All directories of a spool must be on one mount. This is checked without writing anything: the kernel refuses a rename
between two mounts with EXDEV before it even looks for the file. File systems within a mount differ in `st_dev`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING, Final

from trio_multispool.clock import this_user
from trio_multispool.errors import (
    AccessDenied,
    DirectoryNotEmpty,
    NotARegularFile,
    NotASpool,
    SeveralFileSystems,
    SharedFileSystem,
    WorldWritable,
)
from trio_multispool.storage.directory.disk.filesystems import file_system_name, is_known_local
from trio_multispool.storage.directory.disk.format import describe_format, read_format
from trio_multispool.storage.directory.disk.layout import (
    DATA,
    FORMAT_FILE,
    MADE_PREFIX,
    READ_DIRECTORY,
    REGISTRY,
    TEMPORARY,
    Layout,
    checkout_of,
)
from trio_multispool.storage.directory.disk.oserrors import as_spool_error
from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_MARK: Final = FORMAT_FILE + ".new"
_OURS: Final = (REGISTRY, TEMPORARY, DATA)
_WORLD_WRITABLE: Final = 0o002
_NO_SUCH_NAME: Final = ".no-such-file"


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], calls: SystemCalls | None = None) -> Generator[Layout]:
    """Open a directory that should be a spool, and check nothing else; close it if the block raises."""
    path, calls = _absolute(path), SystemCalls() if calls is None else calls
    with _telling("open", path):
        try:
            layout = _layout_of(path, calls.open_root(path), calls)
        except FileNotFoundError as error:
            told = "there is no such directory; make it with Spool.create or `multispool create`"
            raise NotASpool(path, told) from error
    try:
        yield layout
    except BaseException:  # passed on: whatever it was, nobody will close it
        layout.close()
        raise


@contextlib.contextmanager
def _telling(doing: str, path: str) -> Generator[None]:
    """Make a `SpoolError` of what opening or making a directory raises."""
    try:
        yield
    except NotADirectoryError as error:
        raise NotASpool(path, "it is not a directory") from error
    except OSError as error:
        raise as_spool_error(error, doing, path) from error


def _layout_of(path: str, root: int, calls: SystemCalls) -> Layout:
    """Return the layout of a directory that was just opened, or close it."""
    try:
        return Layout(path, root, calls.stat_fd(root), calls)
    except OSError:
        calls.close(root)
        raise


def _absolute(path: str | os.PathLike[str]) -> str:
    """Return the path from the root directory; symlinks are not resolved."""
    try:
        return os.path.abspath(path)
    except OSError as error:
        told = "it is relative to the working directory, which has been deleted; give an absolute path"
        raise NotASpool(os.fspath(path), told) from error


def check(layout: Layout, queues: Sequence[str], *, trust_file_system: bool) -> bool:
    """Refuse a directory that is not a spool with these queues, or is unsafe; tell whether it is adopted."""
    _check_safety(layout, trust_file_system=trust_file_system)
    adopted = read_format(layout)
    missing = [directory for directory in _OURS if not _is_directory(layout, directory)]
    if missing:
        reason = f"it has no directory {missing[0]}" + ("" if adopted or len(missing) < len(_OURS) else ", nor others")
        raise NotASpool(layout.path, reason)
    of_queues = _directories_of(queues)
    for directory in of_queues:
        if not _is_directory(layout, directory):
            parent, _, name = directory.rpartition("/")
            if layout.holds(parent, name):
                raise NotASpool(layout.path, f"{directory!r} is not a directory")
            reason = f"directory {directory!r} is missing; load with create_if_missing=True to make it"
            raise NotASpool(layout.path, reason)
    for directory in (*_OURS, *of_queues):
        with layout.doing("look at", directory):
            found, root = (layout.calls.stat_fd(layout.fds[each]) for each in (directory, ""))
        if found.st_mode & _WORLD_WRITABLE:
            raise WorldWritable(layout.full(directory))
        if found.st_dev != root.st_dev or _is_mount(layout, directory):
            raise SeveralFileSystems(layout.path, directory)
    return adopted


def _directories_of(queues: Sequence[str]) -> list[str]:
    return [directory for queue in queues for directory in (queue, checkout_of(queue))]


def _check_safety(layout: Layout, *, trust_file_system: bool) -> None:
    if layout.directory_mode & _WORLD_WRITABLE:
        raise WorldWritable(layout.path)
    with layout.doing("look at", ""):
        kind = layout.calls.file_system_type(layout.fds[""])
    if not trust_file_system and not is_known_local(kind):
        raise SharedFileSystem(layout.path, file_system_name(kind))


def _is_mount(layout: Layout, directory: str) -> bool:
    """Tell whether a directory is a mount: rename a file that does not exist; EXDEV comes before ENOENT."""
    try:
        layout.calls.move(_NO_SUCH_NAME, layout.fds[directory], _NO_SUCH_NAME, layout.fds[""])
    except OSError as error:
        return error.errno == errno.EXDEV
    return False


def _is_directory(layout: Layout, directory: str) -> bool:
    try:
        return layout.fds[directory] >= 0
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise as_spool_error(error, "open", layout.full(directory)) from error


def create(  # noqa: PLR0913  # what the caller of Spool.create can say
    path: str | os.PathLike[str],
    queues: Sequence[str],
    calls: SystemCalls,
    *,
    mode: int,
    trust_file_system: bool,
    adopted: bool = True,
) -> None:
    """Make the missing parts of a spool; never in a directory that holds other things.

    A new one is `adopted`, or else one that programs without locks may use too.
    """
    path = _absolute(path)
    if mode & _WORLD_WRITABLE:
        raise WorldWritable(path)
    with contextlib.closing(_make_root(path, calls, mode)) as layout:
        _check_safety(layout, trust_file_system=trust_file_system)
        ours = read_format(layout)
        if not ours:
            _sync_ancestors(path, calls)
            _begin(layout, mode, adopted=adopted)
        for directory in (*_OURS, *_directories_of(queues)):
            _make(layout, directory)
        sync_queues(layout, queues)
        if not ours and is_unfinished(layout):
            adopt(layout)


def _begin(layout: Layout, mode: int, *, adopted: bool) -> None:
    """Write the mark of an unfinished spool into an otherwise empty directory, and set its mode.

    A spool that is not to be adopted gets no mark: it is known by its directories, as the original's.
    """
    calls = layout.calls
    if _is_begun(layout):
        _sync(layout, "")  # another creator's mark must be on disk before its directories
        return
    with layout.doing("list", ""), layout.fresh_fd("") as fd:
        others = set(calls.names(fd))
    if not adopted:
        others = {name for name in others if name not in _OURS and not name.startswith(MADE_PREFIX)}
    if others and not _is_begun(layout):  # another creator may have begun since
        raise DirectoryNotEmpty(layout.path)
    mode |= layout.directory_mode & stat.S_ISGID  # by which all that is made there has its group
    if layout.directory_mode != mode:  # the directory existed; it must not allow more than the caller asked for
        with layout.doing("set the mode of", ""):
            calls.change_mode(layout.fds[""], mode)
            layout.measure(calls.stat_fd(layout.fds[""]))
    if adopted:
        _write_mark(layout)


def sync_queues(layout: Layout, queues: Sequence[str]) -> None:
    """Sync the queues: the process that made them may not have done so yet, or may have died before."""
    for directory in ("", *queues):
        _sync(layout, directory)


def _is_begun(layout: Layout) -> bool:
    """Tell whether this is a spool, ours or the original's, or one whose creation has begun."""
    begun = layout.holds("", FORMAT_FILE) or is_unfinished(layout)
    return begun or all(_is_directory(layout, directory) for directory in _OURS)


def is_unfinished(layout: Layout) -> bool:
    """Tell whether a process is making or adopting the spool, or died while doing so."""
    return layout.holds("", _MARK)


def adopt(layout: Layout) -> None:
    """Write `.spool.json`: from now on every user of this spool takes locks. Idempotent."""
    if read_format(layout):
        return
    _write_mark(layout)
    with layout.doing("write", "", FORMAT_FILE):
        root = layout.fds[""]
        try:
            layout.calls.move(_MARK, root, FORMAT_FILE, root)
        except FileExistsError:  # another creator was faster
            with contextlib.suppress(FileNotFoundError):  # a third creator may have removed our mark
                layout.calls.unlink(_MARK, root)
        except FileNotFoundError:  # another creator was faster, and used our mark
            if not layout.holds("", FORMAT_FILE):
                raise
    _sync(layout, "")


def _write_mark(layout: Layout) -> None:
    """Write the mark, even over that of another creator, living or dead: all write the same bytes."""
    calls = layout.calls
    with layout.doing("write", "", _MARK):
        fd = calls.open(_MARK, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, layout.fds[""], layout.file_mode)
        try:
            found = calls.stat_fd(fd)
            if not stat.S_ISREG(found.st_mode):
                raise NotARegularFile(layout.full("", _MARK))
            if found.st_nlink != 1:  # somebody may have linked a file of another user: it is not written, or given away
                raise NotASpool(layout.path, f"{_MARK!r} there has another name somewhere else; delete it")
            try:
                layout.hand_over(fd, layout.file_mode, "", _MARK)
            except AccessDenied:
                if not found.st_size and found.st_uid == this_user()[0]:  # others could not write into it
                    calls.unlink(_MARK, layout.fds[""])
                raise
            content = rest = memoryview(describe_format())
            while rest:
                rest = rest[calls.write(fd, rest) :]
            calls.truncate(fd, len(content))
            calls.sync(fd)
        finally:
            calls.close(fd)
    _sync(layout, "")


def _sync(layout: Layout, directory: str) -> None:
    with layout.doing("sync", directory):
        layout.calls.sync(layout.fds[directory])


def _make(layout: Layout, directory: str) -> None:
    """Make a directory of the spool, if it is missing. Root also gives one that root made to the spool's owner."""
    if _is_directory(layout, directory):
        if layout.owner is not None and layout.owner.user >= 0:
            with layout.doing("look at", directory):
                if layout.calls.stat_fd(layout.fds[directory]).st_uid != layout.owner.user:
                    layout.hand_over(layout.fds[directory], layout.directory_mode, directory)
        return
    _ = layout.ensure_directory(directory)
    if not _is_directory(layout, directory):
        raise NotASpool(layout.path, f"{directory!r} is not a directory")


def _make_root(path: str, calls: SystemCalls, mode: int) -> Layout:
    """Open the spool's own directory. Make it and its parents if they are missing; sync each that has a new name in it.

    What is made here is opened below its parent, and must not be a symlink: others may be able to write into the
    parent, and put a symlink in its place. (A directory that was there before may be reached by symlinks.)
    """
    missing: list[str] = []
    current = path
    while (fd := _opened_if_there(current, calls)) is None:
        current, _, name = current.rpartition("/")
        current = current or "/"
        missing.append(name)
    made = bool(missing)
    try:
        while missing:
            name = missing.pop()
            below = _make_below(fd, name, calls, 0o777 if missing else mode)
            parent, fd = fd, below
            calls.close(parent)
    except OSError as error:
        calls.close(fd)
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotASpool(path, "something else was put into its place while it was being made") from error
        raise as_spool_error(error, "make", path) from error
    with _telling("make" if made else "open", path):
        return _layout_of(path, fd, calls)


def _make_below(parent: int, name: str, calls: SystemCalls, mode: int) -> int:
    """Make a directory, unless another creator is faster, and open it; the umask applies to its mode for now."""
    with contextlib.suppress(FileExistsError):  # another creator was faster
        calls.make_directory(name, parent, mode)
        calls.sync(parent)
    return calls.open(name, READ_DIRECTORY, parent)


def _sync_ancestors(path: str, calls: SystemCalls) -> None:
    """Sync the directories above: another creator may have made any of them without syncing its name yet.

    Skips directories that this process may enter and not read, and file systems that do not sync directories.
    """
    while (above := posixpath.dirname(path)) != path:
        path = above
        try:
            fd = calls.open_root(path)
            try:
                calls.sync(fd)
            finally:
                calls.close(fd)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL):
                raise as_spool_error(error, "sync", path) from error


def _opened_if_there(path: str, calls: SystemCalls) -> int | None:
    """Open a directory by its path; `None` if it is missing."""
    with _telling("open", path), contextlib.suppress(FileNotFoundError):
        return calls.open_root(path)
    return None
