"""System calls that write down what they ask of the disk, as the records of `disk`.

Several stores may share one recording, as several processes share one disk. Calls really are made, in a real
directory; only those that succeeded and that a disk would notice are written down. `write_out` promises nothing, and no
spool loses anything with a mode or an owner, so these are not. The recording keeps a tree of its own beside the real
one, from which it knows what a descriptor or a name leads to.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Any

from crash_states.disk import DATED_AT, KEYS, ROOT, Change, Disk, Expect, Sync, Write
from helpers.syscalls import NEVER_FAIL, HookedCalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crash_states.disk import Entry, Record


_NOTICED = (
    *("make_directory", "write", "truncate", "sync", "sync_file_system", "unlink", "remove_directory"),
    *("move", "exchange"),
)
"""Calls that a disk would notice, besides those that make files."""


class KilledError(BaseException):
    """Ends the code of a process that is killed."""


class Recording:
    """What was asked of a disk, from some state on in which all was safe."""

    def __init__(self, base: Path) -> None:
        """Begin with what lies in a directory, as if all of it were on the disk."""
        self.initial = Disk.read(base)
        self.records: list[Record] = []
        self._base = os.fspath(base)
        self._entries: dict[Entry, int] = dict(self.initial.entries)
        self._next = max(self._entries.values(), default=ROOT) + 1
        self._open: dict[int, tuple[int, str]] = {}
        """The inode and the path of each descriptor."""
        self._offsets: dict[int, int] = {}

    def expect(self, name: str, outcomes: frozenset[object]) -> None:
        """Write down what must be found of an entry from now on."""
        self.records.append(Expect(name, outcomes))

    def note(self, call: str, arguments: tuple[Any, ...], answer: Any) -> None:
        """Write down a call that was made."""
        noting = getattr(self, f"_note_{call}", None)
        if noting is not None:
            noting(answer, *arguments)

    def _find(self, name: str, directory: int | None) -> tuple[Entry, str]:
        """Return the entry that a name leads to, and its path."""
        parent, path = (ROOT, "") if directory is None else self._open[directory]
        if directory is None:
            *parents, name = os.path.relpath(name, self._base).split("/")
            for each in parents:
                parent = self._entries[parent, each]
            path = "/".join(parents)
        return (parent, name), os.path.join(path, name)

    def _new(self, kind: str, entry: Entry, path: str) -> None:
        self._change(f"{kind} {path}", (entry, self._next))
        self._next += 1

    def _change(self, words: str, *sets: tuple[Entry, int | None]) -> None:
        self.records.append(Change(words, sets))
        for entry, inode in sets:
            if inode is None:
                del self._entries[entry]
            else:
                self._entries[entry] = inode

    def _note_open(self, fd: int, name: str, flags: int, directory: int | None = None, _mode: int = 0) -> None:
        if name == "." and directory is not None:
            self._open[fd] = self._open[directory]
            return
        entry, path = self._find(name, directory)
        if entry not in self._entries:
            assert flags & os.O_CREAT, f"{path} was not made by a recorded call"
            self._new("create", entry, path)
        assert not flags & (os.O_TRUNC | os.O_APPEND), "not recorded"
        self._open[fd], self._offsets[fd] = (self._entries[entry], path), 0

    def _note_open_root(self, fd: int, path: str) -> None:
        below = os.path.relpath(path, self._base)
        if below == ".":
            self._open[fd] = (ROOT, "")
        elif set(below.split("/")) == {".."}:  # above what is recorded, and not ours to lose
            _ = self._open.pop(fd, None)
        else:
            self._note_open(fd, path, 0)

    def _note_make_directory(self, _answer: None, name: str, directory: int | None, _mode: int) -> None:
        self._new("mkdir", *self._find(name, directory))

    def _note_read(self, data: bytes, fd: int, _size: int) -> None:
        self._offsets[fd] += len(data)

    def _note_seek(self, offset: int, fd: int, _offset: int, _whence: int) -> None:
        self._offsets[fd] = offset

    def _note_write(self, written: int, fd: int, data: bytes | memoryview) -> None:
        self.records.append(Write(self._open[fd][0], self._offsets[fd], bytes(data[:written])))
        self._offsets[fd] += written

    def _note_set_modified(self, _answer: None, fd: int, when: float) -> None:
        inode, path = self._open[fd]
        if KEYS in path:  # elsewhere, the states are told apart by where a file lies
            self.records.append(Write(inode, DATED_AT, b"1" if when else b"0"))

    def _note_truncate(self, _answer: None, fd: int, size: int) -> None:
        self.records.append(Write(self._open[fd][0], size, None))

    def _note_sync(self, _answer: None, fd: int) -> None:
        if fd in self._open:
            inode, path = self._open[fd]
            self.records.append(Sync(f"sync {path or '.'}", inode))

    def _note_sync_file_system(self, _answer: object, _fd: int) -> None:
        self.records.append(Sync("sync everything", None))

    def _note_unlink(self, _answer: None, name: str, directory: int) -> None:
        entry, path = self._find(name, directory)
        self._change(f"unlink {path}", (entry, None))

    _note_remove_directory = _note_unlink

    def _note_move(self, _answer: None, name: str, directory: int, new_name: str, new_directory: int) -> None:
        (old, path), (new, new_path) = self._find(name, directory), self._find(new_name, new_directory)
        self._change(f"move {path} -> {new_path}", (old, None), (new, self._entries[old]))

    def _note_exchange(self, _answer: None, name: str, directory: int, other_name: str, other: int) -> None:
        (one, path), (two, other_path) = self._find(name, directory), self._find(other_name, other)
        ones, twos = self._entries[one], self._entries[two]
        self._change(f"exchange {path} <-> {other_path}", (one, twos), (two, ones))


class RecordingCalls(HookedCalls):
    """The system calls of one process; it may be interrupted by another, or killed, before a call that is recorded."""

    def __init__(self, recording: Recording, *, file_system: int | None = None) -> None:
        """Write down in this recording, beside others who may; say that the file system is of a certain type."""
        self._recording = recording
        self._file_system = file_system
        self._left = 0
        self._act: Callable[[], None] | None = None
        self._dead = False
        self._locked: set[int] = set()

    def before(self, n: int, act: Callable[[], None]) -> None:
        """Do `act` right before the n-th call from here that a disk would notice; the first is 0."""
        self._left, self._act = n, act

    def die(self) -> None:
        """Be killed: the kernel drops the locks, and nothing that is still tried has any effect."""
        self._dead = True
        for fd in self._locked:
            fcntl.flock(fd, fcntl.LOCK_UN)
        raise KilledError

    @property
    def waiting(self) -> bool:
        """Whether what was to be done before some call was not done yet."""
        return self._act is not None

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Make a call, and write it down."""
        if self._dead and call not in NEVER_FAIL:
            raise OSError(errno.EIO, "dead")
        if self._act is not None and self._is_noticed(call, arguments):
            self._left -= 1
            if self._left < 0:
                act, self._act = self._act, None
                act()
        if call == "file_system_type" and self._file_system is not None:
            return self._file_system
        # A sync is only written down: the disk that is meant is the recorded one.
        answer = None if call in ("sync", "write_out", "sync_file_system") else perform()
        if call == "lock":
            self._locked.add(arguments[0])
        elif call == "close":
            self._locked.discard(arguments[0])
        self._recording.note(call, arguments, answer)
        return answer

    def _is_noticed(self, call: str, arguments: tuple[Any, ...]) -> bool:
        if call == "open":
            return bool(arguments[1] & os.O_CREAT)
        return call in (
            "make_directory",
            "write",
            "truncate",
            "sync",
            "sync_file_system",
            "unlink",
            "remove_directory",
            "move",
            "exchange",
        )
