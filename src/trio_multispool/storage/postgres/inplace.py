"""What is done to an entry where it is, with its row locked: read it whole, replace its parts, delete it, restore it.

These are rare. Each is a short transaction around a row that nobody can have meanwhile.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from psycopg import errors

from trio_multispool.errors import DataNotFound, EntryBusy, EntryNotFound, OwnershipLost
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.policies import check_durability
from trio_multispool.model.times import aware
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.postgres.contents import chunks_of, opened, put_chunks, size_of, written
from trio_multispool.storage.postgres.link import Purpose
from trio_multispool.storage.postgres.take import LETTERS
from trio_multispool.storage.reading import as_file
from trio_multispool.storage.requests import Stat

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trio_multispool.model.policies import Durability
    from trio_multispool.model.types import T
    from trio_multispool.storage.postgres.claims import PostgresClaim
    from trio_multispool.storage.postgres.connecting import Connection
    from trio_multispool.storage.postgres.context import Context
    from trio_multispool.storage.requests import Content

    BeforeCommit = Callable[[], None]

_LOCK: Final = """
    SELECT metadata, written_at, data, chunks, remember FROM SCHEMA.entry
    WHERE name = %s AND queue = %s AND state = %s::"char" FOR UPDATE NOWAIT"""

_RESTORE: Final = """
    UPDATE SCHEMA.entry SET state = 'a', queue = %s, reason = NULL, moved_at = %s, arrived_at = %s WHERE name = %s"""

_REPLACE_METADATA: Final = "UPDATE SCHEMA.entry SET metadata = %b, written_at = %s WHERE name = %s"

_CLEAR: Final = "DELETE FROM SCHEMA.chunk WHERE name = %s"

_DELETE: Final = "DELETE FROM SCHEMA.entry WHERE name = %s"

_KEEP: Final = """
    UPDATE SCHEMA.entry SET state = 'k', queue = '', due_at = %s, metadata = '', data = NULL, chunks = 0, size = 0,
        notes = NULL, begun = NULL, carrier = NULL, cancel = NULL WHERE name = %s"""

_LOCK_DATA: Final = "SELECT 1 FROM SCHEMA.entry WHERE name = %s AND state IN ('a', 'w', 'c', 'q') FOR UPDATE"

_LOCK_OWN_DATA: Final = """
    SELECT 1 FROM SCHEMA.entry WHERE name = %s AND state = 'c' AND owner = %s AND token = %s FOR UPDATE"""

_REPLACE_DATA: Final = "UPDATE SCHEMA.entry SET data = %b, size = %s, chunks = %s, data_at = %s WHERE name = %s"

_DATA: Final = "SELECT data, chunks FROM SCHEMA.entry WHERE name = %s AND state IN ('a', 'w', 'c', 'q')"

_WHERE: Final = "SELECT state::text FROM SCHEMA.entry WHERE name = %s"


@contextlib.contextmanager
def _locked(
    context: Context, operation: str, place: Place, name: str, durability: Durability | None
) -> Generator[tuple[Connection, tuple[Any, ...]]]:
    """Lock an entry in a transaction. Raises `EntryNotFound`, or `EntryBusy` if another one has it locked."""
    check_durability(durability)
    links = context.links
    with links.transaction(Purpose(operation, place.queue, name, links.level(durability))) as connection:
        try:
            with connection.cursor(binary=True) as cursor:
                row = cursor.execute(links.sql(_LOCK), (name, place.queue, LETTERS[place.state])).fetchone()
        except errors.LockNotAvailable:
            raise EntryBusy(name) from None
        if row is None:
            raise EntryNotFound(place.queue, name)
        yield connection, row


def restore(  # noqa: PLR0913  # the protocol's
    context: Context, queue: str, name: str, to: str, *, durability: Durability | None, before_commit: BeforeCommit
) -> None:
    """Put back what was set aside."""
    links = context.links
    with _locked(context, "restore an entry in", Place(queue, State.QUARANTINED), name, durability) as (to_server, _):
        now = context.now()
        before_commit()
        _ = to_server.execute(links.sql(_RESTORE), (to, now, now, name))
    context.arrived({to: [name]})


def discard(
    context: Context, queue: str, name: str, durability: Durability | None, before_commit: BeforeCommit
) -> None:
    """Delete what was set aside. Its name is not remembered: its work was not done."""
    with _locked(context, "discard an entry in", Place(queue, State.QUARANTINED), name, durability) as (to_server, _):
        before_commit()
        _delete(context, to_server, name, None)
    context.moved([name])


def delete(context: Context, queue: str, name: str, durability: Durability | None, before_commit: BeforeCommit) -> None:
    """Delete what is available."""
    place = Place(queue, State.AVAILABLE)
    with _locked(context, "delete an entry in", place, name, durability) as (to_server, row):
        before_commit()
        _delete(context, to_server, name, row[4])
    context.moved([name])


def _delete(context: Context, to_server: Connection, name: str, remember: float | None) -> None:
    links = context.links
    _ = to_server.execute(links.sql(_CLEAR), (name,))
    if remember:
        _ = to_server.execute(links.sql(_KEEP), (context.now() + remember, name))
    else:
        _ = to_server.execute(links.sql(_DELETE), (name,))


def replace_metadata(  # noqa: PLR0913  # the protocol's
    context: Context,
    queue: str,
    name: str,
    metadata: bytes,
    *,
    durability: Durability | None,
    before_commit: BeforeCommit,
) -> None:
    """Replace the metadata of what is available."""
    place = Place(queue, State.AVAILABLE)
    with _locked(context, "change an entry in", place, name, durability) as (to_server, _):
        before_commit()
        _ = to_server.execute(context.links.sql(_REPLACE_METADATA), (metadata, context.now(), name))


def read_entry(
    context: Context, place: Place, name: str, read: Callable[[bytes, Stat, BinaryIO], T]
) -> T | Unavailable:
    """Read an entry while nobody can have it."""
    links = context.links
    try:
        with _locked(context, "read an entry in", place, name, None) as (to_server, row):
            metadata, written_at, data, chunks, _ = row
            with opened(links, to_server, name, data, chunks) as file:
                return read(metadata, Stat(len(metadata), aware(written_at)), file)
    except EntryBusy:
        return Unavailable.BUSY
    except EntryNotFound:
        rows = links.read("look for an entry in", _WHERE, (name,))
        return Unavailable.BUSY if rows and rows[0][0] in ("c", "r") else Unavailable.GONE


def read_data(context: Context, name: str, read: Callable[[BinaryIO], T]) -> T:
    """Read the data of an entry, wherever it is."""
    links = context.links
    [*rows] = links.read("read the data of an entry in", _DATA, (name,))
    if not rows:
        raise DataNotFound(name)
    data, chunks = rows[0]
    if not chunks:
        return read(as_file(data or b""))

    def copy(to_server: Connection) -> BinaryIO:
        with to_server.cursor(binary=True) as cursor:
            row = cursor.execute(links.sql(_DATA), (name,)).fetchone()
        if row is None:
            raise DataNotFound(name)
        return opened(links, to_server, name, *row)

    with links.read_together("read the data of an entry in", copy) as file:
        return read(file)


def replace_data(  # noqa: PLR0913  # the protocol's
    context: Context,
    name: str,
    claim: PostgresClaim | None,
    content: Content,
    *,
    durability: Durability | None,
    before_commit: BeforeCommit,
) -> None:
    """Replace the data of an entry: that of a claim, or of any."""
    check_durability(durability)
    if claim is not None:
        claim.check_owned()
    links, data = context.links, written(content)
    with contextlib.ExitStack() as stack:
        file = None if isinstance(data, bytes) else stack.enter_context(data)
        size = len(data) if isinstance(data, bytes) else size_of(data)
        queue, level = "" if claim is None else claim.queue, links.level(durability)
        with links.transaction(Purpose("change the data of an entry in", queue, name, level)) as to:
            lock, whose = (_LOCK_DATA, ()) if claim is None else (_LOCK_OWN_DATA, (claim.owner, claim.token))
            if to.execute(links.sql(lock), (name, *whose)).fetchone() is None:
                raise DataNotFound(name) if claim is None else OwnershipLost(claim.queue, claim.name)
            put_chunks(links, to, name, file)
            before_commit()
            small = data if isinstance(data, bytes) else None
            values = (small, size, 0 if file is None else chunks_of(size), context.now(), name)
            _ = to.execute(links.sql(_REPLACE_DATA), values)
    if claim is not None:
        claim.data, claim.is_large = None, file is not None
