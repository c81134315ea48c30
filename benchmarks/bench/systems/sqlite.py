"""SQLite with one table for the queues: a commit for each step, in WAL mode, synced at each commit or not at all."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from bench.systems.blocking import Blocking
from bench.work import QUEUES, metadata_of

if TYPE_CHECKING:
    from bench.work import Work

_TABLE = """
create table if not exists entries (id integer primary key, queue text, owner int, metadata blob, data blob)
"""
_CLAIM = """
update entries set owner = 1
where id = (select id from entries where queue = ? and owner is null order by id limit 1)
returning id, metadata
"""


class Table(Blocking):
    """One connection."""

    def __init__(self, work: Work) -> None:
        """Make the table, or find it."""
        super().__init__(work)
        self._connection = sqlite3.connect(f"{work.folder}/queue.db", timeout=60, isolation_level=None)
        synced = "full" if work.level == "power" else "off"
        for statement in (
            "pragma journal_mode = wal",
            f"pragma synchronous = {synced}",
            _TABLE,
            "create index if not exists waiting on entries (queue, owner, id)",
        ):
            _ = self._connection.execute(statement)

    def put(self, number: int) -> None:
        """Insert."""
        _ = self._connection.execute(
            "insert into entries (queue, metadata, data) values (?, ?, ?)", (QUEUES[0], metadata_of(number), self.data)
        )

    def take(self) -> bool:
        """Claim and delete."""
        return self.take_from(QUEUES[0])

    def take_from(self, queue: str) -> bool:
        """Claim and delete."""
        claimed = self._connection.execute(_CLAIM, (queue,)).fetchall()
        if claimed:
            _ = self._connection.execute("delete from entries where id = ?", (claimed[0][0],))
        return bool(claimed)

    def move(self, source: str, target: str) -> bool:
        """Claim, and give back to another queue with new metadata."""
        claimed = self._connection.execute(_CLAIM, (source,)).fetchall()
        if claimed:
            _ = self._connection.execute(
                "update entries set queue = ?, owner = null, metadata = ? where id = ?",
                (target, metadata_of(1), claimed[0][0]),
            )
        return bool(claimed)


def opened(work: Work) -> Table:
    """Open it."""
    return Table(work)
