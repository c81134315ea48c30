"""What is on a device at one moment, kept in little room: images share the chunks that they have in common.

A device is copied while its file system goes on writing, so a copy could hold a later write and lack an earlier one,
which the device never did. Therefore it is read again until two readings in a row are the same: every chunk was the
same before and after the moment between the two, so at that moment the device held just this.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CHUNK = 16 * 1024
_ZEROS = bytes(CHUNK)


class Image:
    """The content of a device. Can be a key: two images are equal if their content is."""

    def __init__(self, size: int, chunks: dict[int, bytes]) -> None:
        """Take over the chunks that are not all zeros, by their number."""
        self.size = size
        self._chunks = chunks
        self._hash = hash(frozenset(chunks.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.size == other.size and self._chunks == other._chunks

    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def read(cls, path: Path, previous: Image | None = None) -> Image:
        """Copy a device's file as it was at one moment, sharing what has not changed since `previous`."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            older = {} if previous is None else previous._chunks
            newer = _collect(descriptor, size, older)
            while older != newer:
                older, newer = newer, _collect(descriptor, size, newer)
        finally:
            os.close(descriptor)
        if previous is not None and newer == previous._chunks:
            return previous
        return cls(size, newer)

    def write(self, path: Path) -> None:
        """Make a sparse file of it."""
        with open(path, "wb") as file:
            file.truncate(self.size)
            for number, chunk in self._chunks.items():
                os.pwrite(file.fileno(), chunk, number * CHUNK)

    def after(self, writes: Iterable[tuple[int, bytes]]) -> Image:
        """Return the image that a row of writes, each an offset and what is written there, would leave."""
        changed: dict[int, bytearray] = {}
        for start, content in writes:
            done = 0
            while done < len(content):
                number, within = divmod(start + done, CHUNK)
                chunk = changed.setdefault(number, bytearray(self._chunks.get(number, _ZEROS)))
                part = content[done : done + CHUNK - within]
                chunk[within : within + len(part)] = part
                done += len(part)
        chunks = self._chunks | {number: bytes(chunk) for number, chunk in changed.items()}
        return Image(self.size, {number: chunk for number, chunk in chunks.items() if chunk != _ZEROS})


def _collect(descriptor: int, size: int, older: dict[int, bytes]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for number in _numbers(descriptor, size):
        chunk = os.pread(descriptor, CHUNK, number * CHUNK)
        known = older.get(number)
        if chunk == known:
            found[number] = known
        elif chunk != _ZEROS:
            found[number] = chunk
    return found


def _numbers(descriptor: int, size: int) -> Iterator[int]:
    """Yield the numbers of the chunks that are no holes. Sizes are whole chunks."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole to the end
            return
        end = -(-os.lseek(descriptor, start, os.SEEK_HOLE) // CHUNK)
        yield from range(start // CHUNK, end)
        offset = end * CHUNK
