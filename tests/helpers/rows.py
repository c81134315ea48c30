"""The state of a spool in PostgreSQL, read from its tables; the library only says how attempts are written down."""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple

import msgspec
import psycopg

from helpers.spools import State
from trio_multispool.storage.postgres.address import Address
from trio_multispool.storage.postgres.claims import read_notes, with_attempts

_ENTRIES = """
SELECT name, queue, state, metadata, notes, begun, progress, carrier, reason, cancel IS NOT NULL, remember, coalesce(
    data, (SELECT string_agg(bytes, '' ORDER BY number) FROM "{spool}".chunk WHERE chunk.name = entry.name)
) FROM "{spool}".entry ORDER BY name
"""


class _Row(NamedTuple):
    name: str
    queue: str
    state: str
    metadata: bytes
    notes: bytes | None
    begun: bytes | None
    progress: bytes | None
    carrier: bytes | None
    reason: str | None
    is_cancelled: bool
    remember: float | None
    data: bytes | None


@functools.cache
def _connection(place: str, _process: int) -> psycopg.Connection[Any]:  # a forked child has one of its own
    return psycopg.connect(place, autocommit=True)


def state_in_tables(location: str) -> State:
    """Read all entries in one statement, so that those in motion are seen once."""
    address = Address.parse(location)
    connection, spool = _connection(address.direct, os.getpid()), address.schema
    queues = [queue for [queue] in connection.execute(f'SELECT name FROM "{spool}".queue ORDER BY name'.encode())]
    rows = [_Row(*row) for row in connection.execute(_ENTRIES.format(spool=spool).encode())]
    entries = [row for row in rows if row.state in "awcq"]

    def those(state: str, *also: str) -> dict[str, dict[str, bytes]]:
        found: dict[str, dict[str, bytes]] = {queue: {} for queue in also}
        for row in entries:
            if row.state == state:
                found.setdefault(row.queue, {})[row.name] = row.metadata
        return found

    return State(
        available=those("a", *queues),
        waiting=those("w", *queues),
        checked_out=those("c", *queues),
        quarantined=those("q"),
        reasons={row.name: row.reason for row in entries if row.reason is not None},
        data={row.name: row.data for row in entries if row.data is not None},
        registry={row.name for row in rows if row.state != "k"},
        keys={row.name for row in rows if row.state == "k" or row.remember is not None},
        temporary={},
        notes={row.name: notes for row in entries if (notes := _notes(row))},
        asked={row.name for row in entries if row.is_cancelled},
        adopted=True,
    )


def _notes(row: _Row) -> bytes:
    """Return all that a file of notes would hold, as one JSON object; nothing, if that is nothing."""
    notes = {
        **with_attempts(read_notes(row.notes), row.begun),
        **read_notes(row.progress),
        **({} if row.carrier is None else {"trace": msgspec.Raw(row.carrier)}),
    }
    return msgspec.json.encode(notes) if notes else b""
