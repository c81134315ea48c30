"""A disk as plain values: what is asked of it, one record a call, and the trees of files that may lie on it.

A directory is a set of *entries*, each a name that leads to an inode. Everything that changes directories is one
`Change`: entries that are set, all at once or not at all, to an inode or to nothing. So a rename is atomic, and what
it does to an entry does not depend on what else has reached the disk.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ROOT = 0
"""The inode of the directory in which all is done; it is always there."""

Entry: TypeAlias = tuple[int, str]
"""A directory's inode, and a name in it."""

Tree: TypeAlias = frozenset[tuple[str, bytes | None]]
"""Paths below the root: with its content if it is a file, with `None` if it is a directory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A call that changes directories: create, mkdir, rename, exchange or unlink."""

    words: str
    sets: tuple[tuple[Entry, int | None], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Write:
    """A call that changes a file's content, from `offset` on; or, with `data` of `None`, its length to `offset`."""

    inode: int
    offset: int
    data: bytes | None

    def apply(self, content: bytes, *, half: bool = False) -> bytes:
        """Return what becomes of a content, if all of this reaches it or only the first half."""
        if self.data is None:
            return content if half else content[: self.offset].ljust(self.offset, b"\0")
        data = self.data[: len(self.data) // 2] if half else self.data
        return content[: self.offset].ljust(self.offset, b"\0") + data + content[self.offset + len(data) :]


@dataclasses.dataclass(frozen=True, slots=True)
class Sync:
    """An fsync that returned, of a file or a directory; or, without an inode, of the whole file system."""

    words: str
    inode: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Expect:
    """From here on, after power loss and recovery, an entry must be in one of these states."""

    name: str
    outcomes: frozenset[object]


Record: TypeAlias = Change | Write | Sync | Expect


@dataclasses.dataclass(frozen=True)
class Disk:
    """What is safe on a disk."""

    entries: Mapping[Entry, int]
    contents: Mapping[int, bytes]
    """Of files; an inode without is a directory."""

    @classmethod
    def read(cls, base: Path) -> Disk:
        """Take what lies in a real directory."""
        entries: dict[Entry, int] = {}
        contents: dict[int, bytes] = {}
        inodes = {os.fspath(base): ROOT}
        for directory, directories, files in os.walk(base):
            for name in sorted([*directories, *files]):
                path = os.path.join(directory, name)
                inodes[path] = entries[inodes[directory], name] = len(inodes)
                if name in files:
                    contents[inodes[path]] = _content_of(path)
        return cls(entries, contents)


def _content_of(path: str) -> bytes:
    """Return what is in a real file; in `KEYS`, with what stands for its time as well."""
    with open(path, "rb") as file:
        content = file.read()
        if KEYS not in path:
            return content
        dated = b"1" if os.fstat(file.fileno()).st_mtime else b"0"
    return content.ljust(DATED_AT, b"\0") + dated


def tree_of(entries: Mapping[Entry, int], content: Callable[[int], bytes | None]) -> Tree:
    """Return the paths that can be reached from the root, with the content of each file, `None` for directories."""
    children: dict[int, list[tuple[str, int]]] = {}
    for (parent, name), inode in entries.items():
        children.setdefault(parent, []).append((name, inode))
    found: list[tuple[str, bytes | None]] = []
    waiting = [("", ROOT)]
    while waiting:
        prefix, directory = waiting.pop()
        for name, inode in children.get(directory, ()):
            path, what = prefix + name, content(inode)
            found.append((path, what))
            if what is None:
                waiting.append((path + "/", inode))
    return frozenset(found)


DATED_AT = 256
"""Beyond the content of any file in `KEYS` lies whether it has a time in the future, as if that were content."""
KEYS = ".keys/"
FAR = 4_000_000_000
"""In the year 2096."""


def build(tree: Tree, base: Path) -> None:
    """Make a tree of real files in an empty directory."""
    for path, content in sorted(tree, key=lambda each: each[0]):
        if content is None:
            os.mkdir(base / path, 0o700)
        else:
            fd = os.open(base / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, content[:DATED_AT].rstrip(b"\0") if KEYS in path else content)
            if KEYS in path:
                os.utime(fd, (0, FAR if content[DATED_AT:] == b"1" else 0))
            os.close(fd)
