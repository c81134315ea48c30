"""Where things lie in a spool directory, and the held descriptors through which everything is reached.

    SPOOL/.spool.json             {"format": 1}: every user of this spool takes locks
    SPOOL/.registry/NAME          reserves NAME for as long as the entry exists; its inode is the entry's lock
    SPOOL/.tmp/NAME               metadata being written
    SPOOL/.tmp/.data.NAME         data being replaced by the entry's owner
    SPOOL/.tmp/.unsafe.NAME       metadata being written by somebody who may not own the entry; locked while alive
    SPOOL/.tmp/.unsafe.data.NAME  data likewise
    SPOOL/.data/NAME              the entry's data
    SPOOL/.notes/NAME             what is kept about an entry beside its metadata; may be absent
    SPOOL/.quarantine/QUEUE/NAME  metadata that could not be decoded; .quarantine/.reasons/NAME says why
    SPOOL/QUEUE/NAME              metadata of an entry that is available in QUEUE
    SPOOL/QUEUE/.checkout/NAME    metadata of an entry that one owner has checked out of QUEUE

A *place* is every `SPOOL/*/`, `SPOOL/*/.checkout/` and `.quarantine/*/` that is found on disk, never what a program's
queue enum knows: an old program must not collect the entries of a queue that it has not heard of.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
import threading
from typing import TYPE_CHECKING, Final

from trio_multispool.lifecycle import Place, State
from trio_multispool.names import invalid_name
from trio_multispool.storage.trouble import as_spool_error

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio_multispool.storage.syscalls import SystemCalls

FORMAT_FILE: Final = ".spool.json"
REGISTRY: Final = ".registry"
TEMPORARY: Final = ".tmp"
DATA: Final = ".data"
NOTES: Final = ".notes"
QUARANTINE: Final = ".quarantine"
REASONS: Final = ".quarantine/.reasons"
CHECKOUT: Final = ".checkout"
DATA_PREFIX: Final = ".data."
UNSAFE_PREFIX: Final = ".unsafe."
UNSAFE_DATA_PREFIX: Final = ".unsafe.data."

READ_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
READ_FILE: Final = os.O_RDONLY | os.O_NONBLOCK  # a FIFO planted in a queue must not block us
NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def directory_of(place: Place) -> str:
    """Return the directory of a place, relative to the spool."""
    if place.state is State.AVAILABLE:
        return place.queue
    if place.state is State.CHECKED_OUT:
        return f"{place.queue}/{CHECKOUT}"
    return f"{QUARANTINE}/{place.queue}"


class Layout:
    """A spool directory that is open: its directories by relative name, as descriptors.

    Descriptors of directories are opened when first wanted and held until `close`, so that nobody can slip another
    directory under an operation. One that was deleted or replaced on disk is opened anew by `refresh`; the old
    descriptor stays open until the end, because another thread may be using it.
    """

    def __init__(self, path: str, root: int, calls: SystemCalls) -> None:
        """Take over `root`, a descriptor of the directory `path`."""
        self.path: str = path
        self.calls: SystemCalls = calls
        self.directory_mode: int = stat.S_IMODE(calls.stat_fd(root).st_mode)
        self.file_mode: int = self.directory_mode & 0o666
        self._mutex = threading.Lock()
        self._open = {"": root}
        self._outdated: list[int] = []

    def full(self, directory: str, name: str = "") -> str:
        """Return a path that a person can use."""
        return posixpath.join(*(part for part in (self.path, directory, name) if part))

    @contextlib.contextmanager
    def doing(self, operation: str, directory: str, name: str = "") -> Generator[None]:
        """Say what is being done to what, so that an `OSError` becomes a `SpoolError` that tells."""
        try:
            yield
        except OSError as error:
            raise as_spool_error(error, operation, self.full(directory, name)) from error

    def fd(self, directory: str) -> int:
        """Return the held descriptor of a directory; raises `OSError`, ENOENT if there is none."""
        with self._mutex:
            found = self._open.get(directory)
            if found is None:
                if not self._open:
                    raise OSError(errno.EBADF, "the spool is closed")
                found = self._open[directory] = self._open_below(directory)
            return found

    def optional_fd(self, directory: str) -> int | None:
        """Return the descriptor of a directory that need not exist, or `None`."""
        try:
            return self.fd(directory)
        except FileNotFoundError:
            return None

    def _open_below(self, directory: str) -> int:
        """Open each component from the root on, so that no component can be a symlink."""
        current, opened = self._open[""], -1
        try:
            for component in directory.split("/"):
                below = self.calls.open(component, READ_DIRECTORY, current)
                if opened >= 0:
                    self.calls.close(opened)
                current = opened = below
        except OSError:
            if opened >= 0:
                self.calls.close(opened)
            raise
        return opened

    def refresh(self, directory: str) -> bool:
        """Open a directory anew if what lies on disk is no longer the one that is held; tell whether that was so."""
        with self._mutex:
            held = self._open.get(directory)
            if held is None:
                return False
            try:
                fresh = self._open_below(directory)
            except OSError:
                fresh = -1
            if fresh >= 0 and _same(self.calls.stat_fd(fresh), self.calls.stat_fd(held)):
                self.calls.close(fresh)
                return False
            self._outdated.append(self._open.pop(directory))
            if fresh >= 0:
                self._open[directory] = fresh
            return True

    @contextlib.contextmanager
    def fresh_fd(self, directory: str) -> Generator[int]:
        """Open a directory for one listing: the reading position of a held descriptor would be shared by threads."""
        fd = self.calls.open(".", READ_DIRECTORY, self.fd(directory))
        try:
            yield fd
        finally:
            self.calls.close(fd)

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        with self._mutex:
            fds = [*self._open.values(), *self._outdated]
            self._open.clear()
            self._outdated.clear()
        for fd in fds:
            self.calls.close(fd)

    # What is on disk. These raise a `SpoolError` if it cannot be told.

    def queues(self) -> list[str]:
        """Return the names of the queues found on disk, sorted."""
        with self.doing("list", ""), self.fresh_fd("") as fd:
            found = self.calls.directories(fd)
        return sorted(name for name in found if invalid_name(name) is None)

    def places(self, queue: str | None = None) -> list[Place]:
        """Return all places found on disk, or those of one queue."""
        queues = self.queues() if queue is None else [queue]
        found = [Place(name, State.AVAILABLE) for name in queues]
        with self.doing("list", ""):
            found += [
                Place(name, State.CHECKED_OUT) for name in queues if self.optional_fd(f"{name}/{CHECKOUT}") is not None
            ]
            if self.optional_fd(QUARANTINE) is not None:
                with self.fresh_fd(QUARANTINE) as fd:
                    quarantined = sorted(name for name in self.calls.directories(fd) if invalid_name(name) is None)
                found += [Place(name, State.QUARANTINED) for name in quarantined if queue in (None, name)]
        return found

    def holds(self, directory: str, name: str) -> bool:
        """Tell whether a directory has a file of that name."""
        with self.doing("look for", directory, name):
            try:
                _ = self.calls.stat(name, self.fd(directory))
            except FileNotFoundError:
                return False
            return True

    def places_of(self, name: str, state: State | None = None) -> list[Place]:
        """Return where the entry is, in all places on disk (of one state, if given); meant to be called under its lock.

        Raises if any place cannot be read: what cannot be seen must not be taken for absent.
        """
        return [
            place
            for place in self.places()
            if (state is None or place.state is state) and self.holds(directory_of(place), name)
        ]

    def entry_names(self, directory: str) -> list[str]:
        """Return the valid names of regular files in a directory, sorted."""
        with self.doing("list", directory), self.fresh_fd(directory) as fd:
            found = self.calls.regular_files(fd)
        return sorted(name for name in found if invalid_name(name) is None)

    def ensure_directory(self, directory: str) -> None:
        """Make a directory below the spool if it is missing, with the spool's mode."""
        parent, _, name = directory.rpartition("/")
        with self.doing("make", directory):
            try:
                self.calls.make_directory(name, self.fd(parent), 0o700)
            except FileExistsError:
                return
            self.calls.change_mode(self.fd(directory), self.directory_mode)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
