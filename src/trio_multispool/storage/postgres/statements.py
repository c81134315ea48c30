"""The statements of one connection, run by libpq's own functions.

A cursor of psycopg works out anew, for each execution, how its values are sent and its rows are read, and waits in
Python. For a statement that the server answers in a tenth of a millisecond, that is most of the time. So this keeps
what it has worked out, has the server keep the plan of what is asked twice, and waits in libpq.
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import TYPE_CHECKING, Any, Final, final

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trio_multispool.storage.postgres.connecting import Connection

    Rows = list[tuple[Any, ...]]

_PLACE: Final = re.compile(rb"%(?:\((\w+)\))?[sb]")


@functools.cache
def _numbered(query: bytes) -> tuple[bytes, list[str]]:
    """Return a statement with its places for values numbered, and their names; without names, each is the next."""
    names: list[str] = []

    def number(place: re.Match[bytes]) -> bytes:
        name = (place[1] or b"%d" % len(names)).decode()
        if name not in names:
            names.append(name)
        return b"$%d" % (names.index(name) + 1)

    return _PLACE.sub(number, query), names


@final
class Statements:
    """What runs statements on a connection, one at a time."""

    def __init__(self, connection: Connection, *, prepares: bool) -> None:
        """Begin with none. `prepares`: the server may keep plans; behind what pools transactions it may be another."""
        self._pgconn = connection.pgconn
        self._transformer = Transformer(connection)
        self._prepares = prepares
        self._numbers = itertools.count(1)
        self._kept: dict[tuple[bytes, tuple[int, ...]], bytes | None] = {}

    def execute(self, query: bytes, values: Mapping[str, Any] | tuple[Any, ...]) -> Rows:
        """Run a statement, with places for its values as psycopg has them, and return its rows."""
        text, names = _numbered(query)
        given = values if isinstance(values, tuple) else [values[name] for name in names]
        transformer = self._transformer
        sent = transformer.dump_sequence(given, [PyFormat.AUTO] * len(given))
        result = self._run(text, sent, transformer.types or (), transformer.formats)
        if result.status == pq.ExecStatus.TUPLES_OK:
            transformer.set_pgresult(result, format=pq.Format.BINARY)
            rows = transformer.load_rows(0, result.ntuples, tuple)
            transformer.set_pgresult(None)
            return rows
        if result.status == pq.ExecStatus.COMMAND_OK:
            return []
        if self._pgconn.status == pq.ConnStatus.BAD:  # libpq's own words have no SQLSTATE
            raise psycopg.OperationalError(result.get_error_message())
        raise psycopg.errors.error_from_result(result)

    def _run(
        self, text: bytes, sent: Sequence[Any], types: tuple[int, ...], formats: Sequence[pq.Format] | None
    ) -> pq.abc.PGresult:
        pgconn, key = self._pgconn, (text, types)
        if not self._prepares or key not in self._kept:
            self._kept[key] = None
            return pgconn.exec_params(text, sent, types, formats, pq.Format.BINARY)
        name = self._kept[key]
        if name is None:
            name = b"multispool_%d" % next(self._numbers)
            made = pgconn.prepare(name, text, types)
            if made.status != pq.ExecStatus.COMMAND_OK:
                return made
            self._kept[key] = name
        return pgconn.exec_prepared(name, sent, formats, pq.Format.BINARY)
