"""A look at the tables of a spool on a server, past the library: which rows there are, and whose."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.postgresql import Server

PATIENCE = 60.0
"""For how long something is waited for that must come, in seconds: a machine may have much else to do."""

_ENTRIES = """
    SELECT name, queue, state::text, owner IS NOT NULL AND owner <> 0, CASE WHEN state <> 'k' THEN due_at END, remember,
        metadata, data, chunks, size, notes, progress, carrier, reason, cancel, cancel_in,
        (SELECT string_agg(bytes, '' ORDER BY number) FROM SCHEMA.chunk WHERE chunk.name = entry.name)
    FROM SCHEMA.entry AS entry ORDER BY name"""


class Tables:
    """The tables of one spool, by a connection of an administrator."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        """Look at a schema."""
        self._connection = connection
        self.schema = schema

    def connect_again(self, server: Server) -> None:
        """Connect to a server that was started anew, or to another one."""
        self._connection.close()
        self._connection = psycopg.connect(server.base, autocommit=True)

    def close(self) -> None:
        """Remove the spool."""
        self.ask("SET client_min_messages = warning")
        self._connection.execute(f'DROP SCHEMA IF EXISTS "{self.schema}" CASCADE'.encode())
        self._connection.close()

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask something, with `SCHEMA` for the spool's schema."""
        statement = statement.replace("SCHEMA.", f'"{self.schema}".')
        cursor = self._connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def entries(self) -> list[tuple[Any, ...]]:
        """Return all that is told of entries and names, but for times and whose they are."""
        return self.ask(_ENTRIES)

    def names(self, states: str = "awcq") -> set[str]:
        """Return the names of what is in one of some states."""
        return {name for (name,) in self.ask("SELECT name FROM SCHEMA.entry WHERE state = ANY(%s)", [*states])}

    def stray_chunks(self) -> int:
        """Return how many parts of data belong to no entry."""
        strays = "NOT EXISTS (SELECT 1 FROM SCHEMA.entry WHERE entry.name = chunk.name)"
        return int(self.ask(f"SELECT count(*) FROM SCHEMA.chunk WHERE {strays}")[0][0])

    def held(self) -> list[tuple[str, int]]:
        """Return what somebody has, or had: names, and owners."""
        return [
            (name, owner) for name, owner in self.ask("SELECT name, owner FROM SCHEMA.entry WHERE owner IS NOT NULL")
        ]

    def owners(self) -> set[int]:
        """Return who has checked out anything."""
        return {owner for (owner,) in self.ask("SELECT DISTINCT owner FROM SCHEMA.entry WHERE state = 'c'")}

    def clear(self) -> None:
        """Delete all entries."""
        self.ask("DELETE FROM SCHEMA.entry")
        self.ask("DELETE FROM SCHEMA.chunk")

    def sessions(self, owner: int) -> list[int]:
        """Return the server's processes that keep an owner alive."""
        statement = """SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ShareLock'
            AND objsubid = 1 AND (classid::bigint << 32) + objid::bigint = %s"""
        return [pid for (pid,) in self.ask(statement, owner)]


@contextlib.contextmanager
def tables_in(server: Server, kind: str) -> Iterator[Tables]:
    """Yield the tables of a spool that is yet to be made, and is removed at the end."""
    tables = Tables(psycopg.connect(server.base, autocommit=True), f"{kind}_{secrets.token_hex(4)}")
    try:
        yield tables
    finally:
        tables.close()


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE, every: float = 0.01) -> Any:
    """Wait until something is so, and return it."""
    end = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {patience} s in vain: {what}"
        time.sleep(every)
    return found
