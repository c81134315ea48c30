"""Entries as a tar stream: `NAME/metadata`, and after it `NAME/data`, for each.

Between the two may be `NAME/about`. A name that has no entry, and is remembered, is `NAME/remembered`.

The format is that of POSIX (pax), which every tar reads. What is read here may have been made by an enemy: it is read
block by block, in memory that does not depend on what it says, no path in it is ever used as one, and a member is
either a regular file of such a name or is refused.
"""

import dataclasses
import tarfile
from collections.abc import Callable
from typing import BinaryIO, Final, NamedTuple, final

from trio_multispool.cli.exits import Failure
from trio_multispool.model.names import invalid_name

METADATA: Final = "metadata"
ABOUT: Final = "about"
DATA: Final = "data"
REMEMBERED: Final = "remembered"

_PARTS: Final = (METADATA, ABOUT, DATA, REMEMBERED)

_BLOCK: Final = tarfile.BLOCKSIZE
_RECORD: Final = tarfile.RECORDSIZE
_CHUNK: Final = 1 << 20
_LARGEST_EXTENSION: Final = 64 * 1024
"""Bytes of an extended header: a name has 200, so a longer header is not one of ours."""

_LONGEST_SIZE: Final = 20
"""Digits of 2**64."""

_OF_ONE_MEMBER: Final = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS: Final = (*_OF_ONE_MEMBER, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_REGULAR: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)
_KINDS: Final = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
}


@final
class Writer:
    """Writes an archive."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._written = 0

    def add(self, name: str, part: str, modified_at: float, size: int, file: BinaryIO) -> None:
        """Write one member; raises `Failure` if `file` does not have so much."""
        info = tarfile.TarInfo(f"{name}/{part}")
        info.size, info.mtime, info.mode = size, int(modified_at), 0o600
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        left = size
        while left:
            piece = file.read(min(left, _CHUNK))
            if not piece:
                raise Failure(f"{info.name} became shorter while it was exported; the archive is incomplete")
            self._write(piece)
            left -= len(piece)
        self._write(bytes(-size % _BLOCK))

    def end(self) -> None:
        """Write the end, without which an archive counts as truncated."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self._written % _RECORD))

    def _write(self, piece: bytes) -> None:
        _ = self._out.write(piece)
        self._written += len(piece)


class Member(NamedTuple):
    """A regular file in an archive: whose it is, and what it is of that."""

    name: str
    part: str
    size: int


class Refused(NamedTuple):
    """A member that is not read, and why."""

    path: str
    reason: str


class Reader:
    """Reads an archive, once, from its beginning to its end; raises `Failure` if it is damaged or no archive."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Read by `read(n)`, which returns n bytes, or fewer at the end."""
        self._read = read
        self._left = 0
        self._padding = 0
        self._began = False

    def next(self) -> Member | Refused | None:
        """Return the next member, past what is left of the one before; `None` at the end."""
        said = _Said()
        while (info := self._header()) is not None:
            if info.type in _EXTENSIONS:
                if info.size > _LARGEST_EXTENSION:
                    raise Failure(f"standard input is damaged: a header of {info.size} bytes")
                self._begin(info.size)
                content = self.read(info.size)
                if info.type == tarfile.GNUTYPE_LONGNAME:
                    said.path = content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
                elif info.type in _OF_ONE_MEMBER:
                    said.read(content)
                continue
            self._begin(info.size if said.size is None else said.size)
            if info.type != tarfile.DIRTYPE:
                return self._member(info.name if said.path is None else said.path, info.type, sparse=said.sparse)
            said = _Said()
        return None

    def _member(self, path: str, kind: bytes, *, sparse: bool) -> Member | Refused:
        if kind not in _REGULAR or sparse:
            return Refused(path, f"it is {_KINDS.get(kind, 'not a regular file')}")
        name, slash, part = path.removeprefix("./").partition("/")
        if not slash or part not in _PARTS:
            return Refused(path, f"only NAME/{METADATA} and NAME/{DATA} are imported")
        if (fault := invalid_name(name)) is not None:
            return Refused(path, str(fault))
        return Member(name, part, self._left)

    def read(self, most: int) -> bytes:
        """Return a piece of the member, of `most` bytes unless less are left; nothing at its end."""
        wanted = min(most, self._left)
        piece = self._read(wanted) if wanted else b""
        if len(piece) < wanted:
            raise Failure("the archive is truncated")
        self._left -= len(piece)
        return piece

    def copy_to(self, file: BinaryIO) -> None:
        """Copy what is left of the member."""
        while piece := self.read(_CHUNK):
            _ = file.write(piece)

    def skip(self) -> None:
        """Go to the end of the member."""
        while self.read(_CHUNK):
            pass
        self._left, self._padding = self._padding, 0
        _ = self.read(_BLOCK)

    def _begin(self, size: int) -> None:
        self._left, self._padding = size, -size % _BLOCK

    def _header(self) -> tarfile.TarInfo | None:
        self.skip()
        block = self._read(_BLOCK)
        if len(block) < _BLOCK:
            raise Failure("the archive is truncated" if self._began else "standard input is not a tar archive")
        if not block.strip(b"\0"):
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            told = "is damaged" if self._began else "is not a tar archive"
            raise Failure(f"standard input {told}: {error}") from error
        if info.size < 0:
            raise Failure("standard input is damaged: a member has a negative size")
        self._began = True
        return info


@dataclasses.dataclass
class _Said:
    """What headers have said of the member that follows them."""

    path: str | None = None
    size: int | None = None
    sparse: bool = False

    def read(self, content: bytes) -> None:
        """Take in the records of an extended header, `LENGTH KEY=VALUE`."""
        while content.strip(b"\0"):
            digits, space, _ = content.partition(b" ")
            length = int(digits) if digits.isdigit() and len(digits) <= len(str(_LARGEST_EXTENSION)) else 0
            record, content = content[len(digits) + len(space) : length - 1], content[length:]
            key, equals, value = record.partition(b"=")
            if not length or not equals:
                raise Failure("standard input is damaged: an extended header cannot be read")
            if key == b"path":
                self.path = value.decode("utf-8", "surrogateescape")
            elif key == b"size":
                self.size = int(value) if value.isdigit() and len(value) <= _LONGEST_SIZE else -1
            elif key.startswith(b"GNU.sparse"):
                self.sparse = True
        if self.size is not None and self.size < 0:
            raise Failure("standard input is damaged: a member has a negative size")
