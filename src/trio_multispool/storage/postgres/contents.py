"""The data of entries: small ones in the entry's row, large ones in chunks, written and read in bounded memory.

Whatever is streamed goes through a temporary file on this host, which is in memory while it is small. So a codec may
seek in it, and may take its time: the transaction is as short as the transfer.
"""

from __future__ import annotations

import io
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from trio_multispool.errors import DataNotFound
from trio_multispool.storage.reading import as_file

if TYPE_CHECKING:
    from trio_multispool.storage.postgres.connecting import Connection
    from trio_multispool.storage.postgres.link import Links
    from trio_multispool.storage.requests import Content

LARGEST_IN_ROW: Final = 64 * 1024
"""In bytes."""

CHUNK: Final = 256 * 1024
"""In bytes."""

_AT_ONCE: Final = 16
"""How many chunks are sent before the server is waited for."""

_IN_MEMORY: Final = 1024 * 1024

_PUT: Final = "INSERT INTO SCHEMA.chunk (name, number, bytes) VALUES (%s, %s, %b)"

_CLEAR: Final = "DELETE FROM SCHEMA.chunk WHERE name = %s"

_GET: Final = "SELECT bytes FROM SCHEMA.chunk WHERE name = %s AND number = %s"


def written(content: Content) -> bytes | BinaryIO:
    """Return the content: small ones as bytes, large ones as a file at its beginning, to be closed."""
    if isinstance(content, bytes):
        return content if len(content) <= LARGEST_IN_ROW else io.BytesIO(content)
    file = _Temporary(_IN_MEMORY)
    try:
        content(cast("BinaryIO", cast("object", file)))
        size = file.seek(0, io.SEEK_END)
        _ = file.seek(0)
        if size > LARGEST_IN_ROW:
            return cast("BinaryIO", cast("object", file))
        small = file.read()
    except BaseException:  # passed on: a codec may raise anything
        file.end()
        raise
    file.end()
    return small


class _Temporary(tempfile.SpooledTemporaryFile[bytes]):
    """A file in memory, or on the disk if it becomes large; who writes it may close it, and it is still there."""

    def close(self) -> None:
        """Do nothing: the end of its block closes it."""

    def end(self) -> None:
        """Close it."""
        super().close()


def _temporary() -> BinaryIO:
    """Return a file in memory, or on the disk if it becomes large."""
    file: Any = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  # closed by who gets it
    return cast("BinaryIO", file)


def size_of(file: BinaryIO) -> int:
    """Return how many bytes a file has; it is at its beginning again."""
    size = file.seek(0, io.SEEK_END)
    _ = file.seek(0)
    return size


def chunks_of(size: int) -> int:
    """Return how many chunks there are of so many bytes."""
    return -(-size // CHUNK)


def put_chunks(links: Links, connection: Connection, name: str, file: BinaryIO | None) -> None:
    """Write the chunks of an entry anew, in a transaction; none if there is no file."""
    _ = connection.execute(links.sql(_CLEAR), (name,))
    if file is None:
        return
    put = links.sql(_PUT)
    with connection.pipeline() as pipeline:
        number = 0
        while part := file.read(CHUNK):
            _ = connection.execute(put, (name, number, part))
            number += 1
            if number % _AT_ONCE == 0:
                pipeline.sync()


def _part(row: tuple[Any, ...] | None, name: str) -> bytes:
    if row is None:
        raise DataNotFound(name)
    part: bytes = row[0]
    return part


def opened(links: Links, connection: Connection, name: str, data: bytes | None, chunks: int) -> BinaryIO:
    """Return the data of an entry as a file, to be closed, in a transaction. `DataNotFound`: a part of them is gone."""
    if not chunks:
        return as_file(data or b"")
    file = _temporary()
    get = links.sql(_GET)
    try:
        with connection.cursor(binary=True) as cursor:
            for number in range(chunks):
                _ = file.write(_part(cursor.execute(get, (name, number)).fetchone(), name))
        _ = file.seek(0)
    except BaseException:  # passed on, whatever it was: nobody gets the file
        file.close()
        raise
    return file
