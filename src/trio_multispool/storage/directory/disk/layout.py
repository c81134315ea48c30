"""Where files lie in a spool directory, and the held descriptors through which all of them are reached.

    SPOOL/.spool.json             {"format": 1}: every user of this spool takes locks
    SPOOL/.registry/NAME          reserves NAME for as long as the entry exists; its inode is the entry's lock
    SPOOL/.tmp/NAME               metadata being written
    SPOOL/.tmp/.data.NAME         data being replaced by the entry's owner
    SPOOL/.tmp/.notes.NAME        notes being replaced by the entry's owner
    SPOOL/.tmp/.unsafe.*.NAME     metadata or data, from a writer that may not own the entry; the writer locks it
    SPOOL/.data/NAME              the entry's data
    SPOOL/.notes/NAME             notes on the entry, beside its metadata; may be absent
    SPOOL/.keys/NAME              for how long to remember NAME once its entry is gone, or until when; may be absent
    SPOOL/.new.*                  a directory for others too, being made
    SPOOL/.paused/QUEUE           that readers take nothing from QUEUE, until when, and why; may be absent
    SPOOL/.limits                 its bytes are locked, one for each slot of a limit; may be absent
    SPOOL/.quarantine/QUEUE/NAME  metadata that could not be decoded; .quarantine/.reasons/NAME says why
    SPOOL/QUEUE/NAME              metadata of an entry that is available in QUEUE
    SPOOL/QUEUE/.waiting/NAME     metadata of an entry that will be available in QUEUE, from its modification time on
    SPOOL/QUEUE/.checkout/NAME    metadata of an entry that one owner has checked out of QUEUE

A *place* is each `SPOOL/*/`, `SPOOL/*/.waiting/`, `SPOOL/*/.checkout/` and `.quarantine/*/` that is found on disk. The
queue enum of the program does not count: an old program must not collect the entries of a queue that it does not
know.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import posixpath
import resource
import stat
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from trio_multispool.clock import random_below, this_user
from trio_multispool.errors import (
    AccessDenied,
    NotARegularFile,
    SpoolError,
    SpoolGone,
    SpoolReplaced,
    StorageFailure,
)
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.names import invalid_name, is_plain
from trio_multispool.storage.directory.disk.oserrors import as_spool_error
from trio_multispool.storage.directory.disk.owners import ROOT, owner_of_new, serves

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator

    from trio_multispool.model.types import T
    from trio_multispool.storage.directory.disk.owners import Owner
    from trio_multispool.storage.directory.disk.syscalls import SystemCalls


FORMAT_FILE: Final = ".spool.json"
REGISTRY: Final = ".registry"
TEMPORARY: Final = ".tmp"
DATA: Final = ".data"
NOTES: Final = ".notes"
REMEMBERED: Final = ".keys"
CANCELLATIONS: Final = ".cancel"
PAUSES: Final = ".paused"
LIMITS: Final = ".limits"
QUARANTINE: Final = ".quarantine"
REASONS: Final = ".quarantine/.reasons"
CHECKOUT: Final = ".checkout"
WAITING: Final = ".waiting"
DATA_PREFIX: Final = ".data."
_NEEDED: Final = (REGISTRY, TEMPORARY, DATA)
"""A spool without one of these is none, or another one."""

NOTES_PREFIX: Final = ".notes."
MADE_PREFIX: Final = ".new."
"""Of directories that are being made, beside the place where they will be."""
UNSAFE_PREFIX: Final = ".unsafe."
OWNERS_PREFIXES: Final = ("", DATA_PREFIX, NOTES_PREFIX)
"""Of the temporary files of an entry's owner."""

READ_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
READ_FILE: Final = os.O_RDONLY | os.O_NONBLOCK  # a FIFO planted in a queue must not block us
NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_OWNERS: Final = stat.S_IRWXU
"""The mode of directories that only their owner may use."""
_ENTER: Final = stat.S_IRUSR | stat.S_IXUSR
"""What the owner of a directory needs, to list it and look at what is in it."""


_NAMES_KEPT: Final = 4096
"""So many names of directories are put together once only."""

_DIRECTORIES: Final = {
    State.AVAILABLE: "{}",
    State.CHECKED_OUT: f"{{}}/{CHECKOUT}",
    State.WAITING: f"{{}}/{WAITING}",
    State.QUARANTINED: f"{QUARANTINE}/{{}}",
}


@functools.lru_cache(maxsize=_NAMES_KEPT)
def directory_of(place: Place) -> str:
    """Return the directory of a place, relative to the spool."""
    return _DIRECTORIES[place.state].format(place.queue)


@functools.lru_cache(maxsize=_NAMES_KEPT)
def checkout_of(queue: str) -> str:
    """Return the directory of the entries checked out of a queue, relative to the spool."""
    return f"{queue}/{CHECKOUT}"


@functools.lru_cache(maxsize=_NAMES_KEPT)
def waiting_of(queue: str) -> str:
    """Return the directory of the entries that wait for a queue, relative to the spool; it may be missing."""
    return f"{queue}/{WAITING}"


Denied: TypeAlias = dict[str, SpoolError]
"""Directories that this process cannot read or enter, and what is no directory in their place, with the error of each.
"""

_OF_ONE_DIRECTORY: Final = (AccessDenied, NotARegularFile, StorageFailure)
"""Errors about one directory, and not about the whole spool, unless the number says otherwise."""

_OF_ALL: Final = (errno.EBADF, errno.ENOMEM, errno.ENOLCK)
"""Numbers of failures about this process or the kernel, and not about a directory."""


_PIN: Final = "\0"
"""Between the name and the inode of a directory that is pinned; no name on disk has it."""

_FEW_NAMES: Final = 3
"""So few names are looked up one by one in any directory."""

_SIZE_OF_A_NAME: Final = 32 * 64
"""Listing takes a thirtieth of a look-up for each name, which has some 64 bytes of the directory's size."""

_LEAST_SIZE: Final = 64 * 1024
"""The size of a directory that is listed in no time. (Once large, a directory may stay so.)"""

_FEW_OUTDATED: Final = 16
"""How many descriptors of replaced directories stay open, for threads that use one, and for what is in hand."""


MOST_HELD: Final = 512
"""At most so many names of directories are held, of two for each. If the process may have few files open, fewer: with
the usual limit of 1,024, the directories have 128 descriptors."""


class Doing(msgspec.Struct, eq=False):
    """Names the operation of a block, for its errors. A class, because a generator would take four times as long."""

    layout: Layout
    operation: str
    directory: str
    name: str

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        """Turn an `OSError` into a `SpoolError`."""
        if isinstance(error, OSError):
            raise as_spool_error(error, self.operation, self.layout.full(self.directory, self.name)) from error


class _Held(dict[str, int]):
    """The descriptors of directories by their names. Asking for one that is not held opens it."""

    def __init__(self, root: int, find: Callable[[str], int]) -> None:
        super().__init__({"": root})
        self._find = find

    def __missing__(self, directory: str) -> int:
        return self._find(directory)


class _Seen(threading.local):
    """What a thread has looked at, in a block for which one look is enough."""

    directories: set[str] | None = None


class Layout:
    """A spool directory that is open: its directories by relative name, as descriptors.

    A directory's descriptor is opened when first needed, and held until `close`. So no process can put another
    directory under a running operation. If a directory was deleted or replaced on disk, `refresh` forgets it, and it is
    opened anew. So does a listing of the places, and `check_named` once the spool's directory has changed; an
    exchange within a queue does not change that one, so `.waiting` and `.checkout` are looked at before their use.
    The old descriptor stays open until some more directories were replaced: another thread may be using it, and what
    is in hand of it is settled there.
    """

    def __init__(self, path: str, root: int, found: os.stat_result, calls: SystemCalls) -> None:
        """Take over `root`, a descriptor of the directory `path`, and its `fstat`."""
        self.path: str = path
        self.calls: SystemCalls = calls
        self.measure(found)
        self.afterwards: Callable[[Callable[[], None]], None] = self._the_next_time
        """Calls something when all that is under way has ended: where threads share this, they say how."""
        self._put_off: Callable[[], None] | None = None
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_held = MOST_HELD if soft == resource.RLIM_INFINITY else min(MOST_HELD, max(64, soft // 4))
        self._mutex = threading.Lock()
        self._seen = _Seen()
        self.fds: dict[str, int] = _Held(root, self._find)
        """The held descriptor of each directory. `fds[directory]` raises `OSError`, ENOENT if there is none."""
        self._identity = found.st_dev, found.st_ino
        self._checked = found.st_ctime_ns, found.st_nlink
        self._inodes: dict[str, int] = {}
        self.pins: dict[str, str] = {}
        """What is `pinned` of the directories that are held."""
        self.kept: set[str] = set()
        """The directories that were made on demand and are synced, pinned: they survive power loss."""
        self._doubtful: set[str] = set()
        """Directories whose owner or mode differs from the root's, so that opening them does not prove enough."""
        self._outdated: deque[str] = deque()
        """What was `pinned` of directories that were replaced, the last one last."""

    def measure(self, found: os.stat_result) -> None:
        """Note the root's mode and owner: files and directories will be made accordingly."""
        self.directory_mode: int = stat.S_IMODE(found.st_mode)
        self.file_mode: int = self.directory_mode & 0o666
        self.owner: Owner | None = owner_of_new(found, *this_user())
        """Whom new files and directories must be given; `None` if they are right as this process makes them."""
        self._found: os.stat_result = found

    def check_named(self) -> None:
        """Raise `SpoolGone` or `SpoolReplaced` if the spool's path does not lead to the directories that are held.

        A path that cannot be looked at, for want of a permission say, proves nothing. What lies in the spool is
        compared only if the spool's directory has changed since that was done last: then it has another change time
        (but for what happens within one tick of the kernel), or another number of directories in it.
        """
        seen = self._seen.directories
        if seen is not None and "" in seen:
            return
        self.check_still_named()
        if seen is not None:
            seen.add("")

    def check_still_named(self) -> None:
        """Do as `check_named` does, also where one look was enough: something was not found."""
        try:
            found = self.calls.stat_path(self.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SpoolGone(self.path) from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise SpoolGone(self.path) from error
            return
        if (found.st_dev, found.st_ino) != self._identity:
            raise SpoolReplaced(self.path)
        if (state := (found.st_ctime_ns, found.st_nlink)) != self._checked:
            with contextlib.suppress(AccessDenied):
                self._check_inside()
            self._checked = state

    @contextlib.contextmanager
    def in_one_look(self) -> Generator[None]:
        """In the block, and in this thread, look once only whether things are where they were."""
        self._seen.directories = set()
        try:
            yield
        finally:
            self._seen.directories = None

    def _check_inside(self) -> None:
        """Raise if a directory that every entry needs was exchanged; follow all others, so that entries are seen."""
        for directory in _NEEDED:
            is_there, was_replaced = self._look_below(directory)
            if not is_there:
                raise SpoolGone(self.full(directory))
            if was_replaced:
                raise SpoolReplaced(self.full(directory))
        with self._mutex:
            others = [each for each in self.fds.keys() - {"", *_NEEDED} if _PIN not in each]
        for directory in sorted(others):  # each after the one above it
            shut: Denied = {}
            _ = self._unless_shut(directory, shut, functools.partial(self._look_below, directory))

    def full(self, directory: str, name: str = "") -> str:
        """Return the full path, for messages."""
        return posixpath.join(*(part for part in (self.path, directory.partition(_PIN)[0], name) if part))

    def doing(self, operation: str, directory: str, name: str = "") -> Doing:
        """Name the operation of a block, so that an `OSError` becomes a `SpoolError` that names it."""
        return Doing(self, operation, directory, name)

    def _find(self, directory: str) -> int:
        """Return the descriptor of a directory that was not held."""
        if _PIN in directory:
            return self._find_pinned(directory)
        with self._mutex:
            found = self.fds.get(directory)
            if found is None:
                if not self.fds:
                    raise OSError(errno.EBADF, "the spool is closed")
                found = self._open_below(directory)
                pin = f"{directory}{_PIN}{self._inodes[directory]}"
                if pin in self.fds:  # it was moved away, and back
                    self.close_fd(found)
                    found = self.fds[pin]
                    self._outdated.remove(pin)
                if len(self.fds) > self._most_held:
                    self._let_some_go()
                self.fds[directory] = self.fds[pin] = found
                self.pins[directory] = pin
            return found

    def _let_some_go(self) -> None:
        """Let go of the directories that have been held for longest, but for those that every entry needs.

        They are closed when nothing that is under way can be using them, and opened again when they are needed.
        """
        held = [each for each in self.fds if each not in ("", *_NEEDED) and _PIN not in each]
        closing: list[int] = []
        for directory in held[: len(held) // 2]:
            pin = self.pins.pop(directory)
            closing.append(self.fds.pop(directory))
            del self.fds[pin], self._inodes[directory]
            self.kept.discard(pin)  # its number may become another directory's
        self.afterwards(functools.partial(self._close_each, closing))

    def _the_next_time(self, act: Callable[[], None]) -> None:
        """Call what was given the last time: the one thread that there is may be using what it has just looked up."""
        before, self._put_off = self._put_off, act
        if before is not None:
            before()

    def _close_each(self, fds: Iterable[int]) -> None:
        for fd in fds:
            self.close_fd(fd)

    def _find_pinned(self, pinned: str) -> int:
        """Return the descriptor of one that is not held under that name (any more), if it is there."""
        name = pinned.partition(_PIN)[0]
        found = self.fds[name]
        if self.pins.get(name) != pinned:
            raise FileNotFoundError(errno.ENOENT, "another directory is in its place")
        return found

    def pinned(self, directory: str) -> str:
        """Return another name of a directory: for the one that is held now, also when that will have been replaced.

        If there is none, its own name.
        """
        if directory not in self.pins:
            _ = self.optional_fd(directory)
        return self.pins.get(directory, directory)

    def named(self, pinned: str) -> str:
        """Return the name on disk of a directory that is pinned, unless it was replaced."""
        name = pinned.partition(_PIN)[0]
        return name if self.pins.get(name) == pinned else pinned

    def optional_fd(self, directory: str) -> int | None:
        """Return the descriptor of a directory, or `None` if it is missing."""
        with self.doing("open", directory):
            try:
                return self.fds[directory]
            except FileNotFoundError:
                return None

    def _open_below(self, directory: str) -> int:
        """Open each component, beginning at the root, so that no component can be a symlink."""
        current, opened = self.fds[""], -1
        try:
            for component in directory.split("/"):
                below = self.calls.open(component, READ_DIRECTORY, current)
                if opened >= 0:
                    self.close_fd(opened)
                current = opened = below
            found = self.calls.stat_fd(opened)
            self._inodes[directory] = found.st_ino
            self._doubt(directory, found)
        except OSError:
            if opened >= 0:
                self.close_fd(opened)
            raise
        return opened

    def refresh(self, directory: str) -> bool:
        """Forget a held directory if another one (or none) is in its place on disk; tell whether that was so.

        One that every entry needs is held for good: what is in hand is settled there, and `check_named` tells. A pinned
        one is never forgotten.
        """
        if _PIN in directory:
            return False
        parent, _, _ = directory.rpartition("/")
        replaced = self.refresh(parent) if parent else False
        return self._look_below(directory)[1] or replaced

    def follow(self, directory: str) -> None:
        """Forget a held directory if another one is in its place, below the one that is held: that is one look."""
        seen = self._seen.directories
        if directory in self.fds and (seen is None or directory not in seen):
            parent, _, name = directory.rpartition("/")
            is_same = False
            with contextlib.suppress(OSError, KeyError):
                is_same = self.calls.stat(name, self.fds[parent]).st_ino == self._inodes[directory]
            if not is_same:
                _ = self._look_below(directory)
            if seen is not None:
                seen.add(directory)

    def is_there(self, directory: str) -> bool:
        """Tell whether a directory is on disk. First forget a held one that was replaced.

        A symlink counts: it may lead to a directory that was moved away. It cannot be opened.
        """
        parent, _, _ = directory.rpartition("/")
        if parent and not self.is_there(parent):
            return False
        found = self._look_below(directory)[0]
        return found is not None and (stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode))

    def _look_below(self, directory: str) -> tuple[os.stat_result | None, bool]:
        """Return what is on disk, and whether a held directory was replaced, if the one above was looked at."""
        parent, _, name = directory.rpartition("/")
        try:
            found = self.look_at(parent, name)
        except StorageFailure as error:
            if error.errno == errno.ENOTDIR:  # something else is in the place of the one above
                _ = self._forget_unless(directory, None)
            raise
        replaced = self._forget_unless(directory, None if found is None else found.st_ino)
        if found is not None:
            self._doubt(directory, found)
        return found, replaced

    def _forget_unless(self, directory: str, inode: int | None) -> bool:
        """Forget a directory that is held and is another one; tell whether it is. Its descriptor may be in use."""
        with self._mutex:
            replaced = directory in self.fds and self._inodes[directory] != inode
            if replaced and directory not in _NEEDED:
                del self.fds[directory]
                self._outdated.append(self.pins.pop(directory))
                if len(self._outdated) > _FEW_OUTDATED:
                    closing = [self.fds.pop(self._outdated.popleft())]
                    self.afterwards(functools.partial(self._close_each, closing))
        return replaced

    def _doubt(self, directory: str, found: os.stat_result) -> None:
        """Note whether a directory may be one that this process can open and not enter. This asks the disk nothing."""
        top = self._found
        if (found.st_mode, found.st_uid, found.st_gid) == (top.st_mode, top.st_uid, top.st_gid):
            self._doubtful.discard(directory)
            return
        ours = this_user()[0]
        if ours == ROOT or (found.st_uid == ours and found.st_mode & _ENTER == _ENTER):
            self._doubtful.discard(directory)
        else:
            self._doubtful.add(directory)

    @contextlib.contextmanager
    def fresh_fd(self, directory: str) -> Generator[int]:
        """Open a directory for one listing: threads would share the reading position of a held descriptor."""
        fd = self.calls.open(".", READ_DIRECTORY, self.fds[directory])
        try:
            yield fd
        finally:
            self.close_fd(fd)

    def close_fd(self, fd: int) -> None:
        """Close a descriptor that was not used for writing. Errors are ignored: it is closed anyway."""
        try:
            self.calls.close(fd)
        except OSError:
            return

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        with self._mutex:
            fds = set(self.fds.values())
            self.fds.clear()
            self._outdated.clear()
        self._close_each(fds)
        self._the_next_time(lambda: None)

    # What is on disk. These methods raise a `SpoolError` if they cannot find out.

    def queues(self) -> list[str]:
        """Return the names of the queues found on disk, sorted."""
        return self._children("")

    def _children(self, directory: str) -> list[str]:
        """Return the valid names of the subdirectories, sorted. First forget those that were replaced."""
        with self.doing("list", directory), self.fresh_fd(directory) as fd:
            found = self.calls.directories(fd)
        names = sorted(name for name in found if invalid_name(name) is None)
        for name in names:
            child = f"{directory}/{name}" if directory else name
            if self._inodes.get(child, found[name]) != found[name]:
                _ = self.refresh(child)
        return names

    def places(self, queue: str | None = None, *, shut: Denied | None = None) -> list[Place]:
        """Return all places found on disk, or those of one queue.

        Raises `AccessDenied` if this process may not read or enter one. With `shut`, put the error there instead, by
        the directory, and go on. A queue that cannot be entered is shut as a whole: none of its places is returned.
        """
        if queue is not None:
            _ = self.refresh(queue)
        queues = self._children("") if queue is None else [queue]
        closed: Denied = {} if shut is None else shut
        if shut is not None:
            for name in queues:
                _ = self.is_open(name, shut)
        found: list[Place] = []
        # The check-outs first: an entry that an `…_unsafe` operation moves meanwhile must not be missed.
        for state in (State.CHECKED_OUT, State.WAITING):
            for place in (Place(name, state) for name in queues if name not in closed):
                found += [place] if self._is_open_below(place.queue, directory_of(place), shut) else []
        found += [Place(name, State.AVAILABLE) for name in queues]
        found = [place for place in found if place.queue not in closed]
        if self.is_open(QUARANTINE, shut):
            names = self._unless_shut(QUARANTINE, shut, lambda: self._children(QUARANTINE)) or []
            aside = [Place(name, State.QUARANTINED) for name in names if queue in (None, name)]
            found += [place for place in aside if shut is None or self.is_open(directory_of(place), shut)]
        return found

    def is_open(self, directory: str, shut: Denied | None = None, *, is_doubtful: bool = False) -> bool:
        """Tell whether a directory is there, and can be read and entered.

        If it cannot be, put the error into `shut`; without `shut`, raise it. The disk is asked again about a held
        directory only if its owner and mode make that doubtful, or the caller says so.
        """

        def look() -> bool:
            fd = self.optional_fd(directory)
            if fd is not None and (is_doubtful or directory in self._doubtful):
                with self.doing("enter", directory):
                    self.close_fd(self.calls.open(".", READ_DIRECTORY, fd))
            return fd is not None

        return self._unless_shut(directory, shut, look) or False

    def has_directory(self, directory: str) -> bool:
        """Tell whether a directory is there. Something else in its place counts as none.

        Raises `AccessDenied` if this process cannot read or enter it.
        """
        shut: Denied = {}
        there = self.is_open(directory, shut)
        if shut and not self.holds_nothing(directory):
            raise shut[directory]
        return there

    def _is_open_below(self, queue: str, directory: str, shut: Denied | None) -> bool:
        """Tell whether a directory of a queue is there, and is open. What cannot be looked at shuts its queue."""
        looked_at = self._unless_shut(queue, shut, lambda: self._look_below(directory))
        return looked_at is not None and looked_at[0] is not None and self.is_open(directory, shut)

    @staticmethod
    def _unless_shut(directory: str, shut: Denied | None, look: Callable[[], T]) -> T | None:
        """Return what `look` returns; `None` if it raises for a directory, after putting the error into `shut`."""
        try:
            return look()
        except _OF_ONE_DIRECTORY as error:
            if shut is None or (isinstance(error, StorageFailure) and error.errno in _OF_ALL):
                raise
            shut[directory] = error
            return None

    def again_if_replaced(self, directory: str, look: Callable[[], T]) -> T:
        """Return what `look` returns. If it finds no file because the directory was replaced on disk, look again."""
        try:
            return look()
        except FileNotFoundError:
            if not self.refresh(directory):
                raise
            return look()

    def look_at(self, directory: str, name: str, operation: str = "look at") -> os.stat_result | None:
        """Return what `stat` tells about a file; `None` if it is gone, or its directory is missing."""
        try:
            return self.calls.stat(name, self.fds[directory])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise as_spool_error(error, operation, self.full(directory, name)) from error

    def may_read(self, directory: str, name: str) -> bool:
        """Tell whether this process may read a file or a directory; for root, whether the spool's owner may."""
        return self._may(directory, name, READ_FILE, stat.S_IRUSR)

    def may_enter(self, directory: str, name: str) -> bool:
        """Tell whether this process may read and enter a directory; for root, whether the spool's owner may."""
        return self._may(directory, name, READ_DIRECTORY, _ENTER)

    def _may(self, directory: str, name: str, flags: int, mode: int) -> bool:
        if this_user()[0] == ROOT:
            if self._found.st_uid == ROOT:
                return True
            found = self.look_at(directory, name)
            return found is None or serves(found, self._found, mode)
        try:
            opened = self.calls.open(name, flags, self.fds[directory])
            try:
                if mode == _ENTER:
                    self.close_fd(self.calls.open(".", READ_DIRECTORY, opened))
            finally:
                self.close_fd(opened)
        except PermissionError:
            return False
        except OSError:  # it is gone, or is something else: others tell
            return True
        return True

    def holds(self, directory: str, name: str) -> bool:
        """Tell whether a directory has a file with that name."""
        return self.look_at(directory, name, "look for") is not None

    def places_of(self, name: str, *, to_collect: bool = False) -> list[Place]:
        """Return all places on disk that have the entry. Call it under the entry's lock.

        Raises what `refuse_if_unseen` raises if there is none.
        """
        shut: Denied = {}
        found = self.where_are({name}, shut).get(name, [])
        if not found:
            self.refuse_if_unseen(shut, to_collect=to_collect)
        return found

    def place_of(self, name: str) -> Place | None:
        """Return one place that has the entry, `None` if there is none; raises as `places_of` does.

        Asks for it by path in every place, which is quick; where that is not plain, each directory is looked at.
        """
        root, stat_at = self.fds[""], self.calls.stat
        queues = self._children("")
        # The check-outs first, as in `places`: what an `…_unsafe` operation moves meanwhile must not be missed.
        directories = [f"{queue}{below}" for below in (f"/{CHECKOUT}", f"/{WAITING}", "") for queue in queues]
        try:
            if self.optional_fd(QUARANTINE) is not None:
                directories += [f"{QUARANTINE}/{queue}" for queue in self._children(QUARANTINE)]
        except _OF_ONE_DIRECTORY:
            return next(iter(self.places_of(name)), None)
        for directory in directories:
            try:
                _ = stat_at(f"{directory}/{name}", root)
            except FileNotFoundError:
                continue
            except OSError:
                pass
            return next(iter(self.places_of(name)), None)
        return None

    def where_are(self, names: Collection[str], shut: Denied) -> dict[str, list[Place]]:
        """Return the places of each name that is in any, in one pass over all places; `shut` is as for `places`.

        Names whose locks are held stay where they are meanwhile.
        """
        found: dict[str, list[Place]] = {}
        for place in self.places(shut=shut):
            directory = directory_of(place)
            here = self._unless_shut(directory, shut, functools.partial(self._those_in, directory, names))
            for name in here or ():
                found.setdefault(name, []).append(place)
        return found

    def _those_in(self, directory: str, names: Collection[str]) -> list[str]:
        """Return which of the names a directory has. Looks each up, unless listing them all is quicker."""
        if len(names) > _FEW_NAMES:
            with self.doing("look at", directory):
                size = self.calls.stat_fd(self.fds[directory]).st_size
            if size <= _LEAST_SIZE + len(names) * _SIZE_OF_A_NAME:
                with self.doing("list", directory), self.fresh_fd(directory) as fd:  # whatever kind of file it is
                    return [name for name, _, _ in self.calls.scan(fd) if name in names]
        return [name for name in names if self.holds(directory, name)]

    def refuse_if_unseen(self, shut: Denied, *, to_collect: bool) -> None:
        """Raise if a place could not be read: an entry that cannot be seen must not count as absent.

        What is no directory holds no entry. But it may stand where somebody moved a directory away: if all files of the
        name are `to_collect`, it raises too.
        """
        for directory, error in shut.items():
            if to_collect or not self.holds_nothing(directory):
                raise error

    def holds_nothing(self, directory: str) -> bool:
        """Tell whether something else is in the place of a directory."""
        parent, _, name = directory.rpartition("/")
        found = self.look_at(parent, name)
        return found is not None and not stat.S_ISDIR(found.st_mode)

    def entry_names(self, directory: str) -> list[str]:
        """Return the valid names of regular files in a directory, sorted."""
        with self.doing("list", directory), self.fresh_fd(directory) as fd:
            found = self.calls.regular_files(fd)
        if not all(map(is_plain, found)):
            found = [name for name in found if invalid_name(name) is None]
        found.sort()
        return found

    def each_entry_name(self, directory: str) -> Iterator[str]:
        """Yield what `entry_names` returns, in no order, without keeping a list: for large queues."""
        with self.doing("list", directory), self.fresh_fd(directory) as fd:
            for name, is_file, _ in self.calls.scan(fd):
                if is_file and (is_plain(name) or invalid_name(name) is None):
                    yield name

    def ensure_directory(self, directory: str) -> bool:
        """Make a directory of the spool if it is missing, with the spool's owner and mode; tell whether it was missing.

        If others may use it too, it has another name until it is handed over: it would shut them out, and for good if
        this process were killed. One that cannot be given to the owner is removed again.
        """
        parent, _, name = directory.rpartition("/")
        is_for_others = self.owner is not None or self.directory_mode != _OWNERS
        with self.doing("make", directory):
            if not self.refresh(directory) and directory in self.fds:
                return False
            try:
                if is_for_others and not self.holds(parent, name):
                    with contextlib.suppress(PermissionError):  # here no rename can refuse to replace a directory
                        return self._make(directory, "", self._free_name())
                return self._make(directory, parent, name)
            except FileExistsError:
                return False

    def _free_name(self) -> str:
        """Return a name for a directory that is being made. Chance may repeat itself, in a program that has set it."""
        while self.holds("", name := f"{MADE_PREFIX}{random_below(1 << 32):08x}"):
            pass
        return name

    def _make(self, directory: str, there: str, first: str) -> bool:
        """Make a directory in `there`, named `first`, hand it over, and rename it. Raises `FileExistsError`."""
        parent, _, name = directory.rpartition("/")
        above = self.fds[there]
        self.calls.make_directory(first, above, _OWNERS)
        try:
            fd = self.calls.open(first, READ_DIRECTORY, above)
            try:
                self.hand_over(fd, self.directory_mode, directory)
            finally:
                self.close_fd(fd)
            if first != name:
                self.calls.move(first, above, name, self.fds[parent])
        except (OSError, SpoolError):
            with contextlib.suppress(OSError):  # another process may have put something into it
                self.calls.remove_directory(first, above)
            raise
        _ = self.refresh(directory)  # an earlier one of this name may be held
        return True

    def hand_over(self, fd: int, mode: int, directory: str, name: str = "") -> None:
        """Give a new file or directory the spool's owner and group, and its mode; call this before its sync.

        Raises `AccessDenied`, with the cure, if this process may not give it away; and `OSError`.
        """
        if self.owner is not None:
            try:
                self.calls.change_owner(fd, *self.owner)
            except PermissionError as error:
                raise AccessDenied("set the owner of", self.full(directory, name), self.owner.cure) from error
        self.calls.change_mode(fd, mode)
