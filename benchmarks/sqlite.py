"""SQLite with one table as the queue: a commit for each step, in WAL mode, synced at each commit or not at all."""

from __future__ import annotations

import sqlite3
import time

from bare import METADATA
from common import DATA

_CLAIM = """
update entries set owner = 1
where id = (select id from entries where owner is null order by id limit 1)
returning id, metadata
"""


def measure(folder: str, entries: int, *, sync: bool) -> tuple[float, float]:
    """Return how many entries a second are enqueued, and claimed and deleted; one blocking loop, one connection."""
    connection = sqlite3.connect(f"{folder}/queue.db", isolation_level=None)  # each statement commits by itself
    _ = connection.execute("pragma journal_mode = wal")
    _ = connection.execute(f"pragma synchronous = {'full' if sync else 'off'}")
    _ = connection.execute("create table entries (id integer primary key, owner int, metadata blob, data blob)")
    _ = connection.execute("create index waiting on entries (owner, id)")
    began = time.perf_counter()
    for _ in range(entries):
        _ = connection.execute("insert into entries (metadata, data) values (?, ?)", (METADATA, DATA))
    enqueued = time.perf_counter()
    removed = 0
    while claimed := connection.execute(_CLAIM).fetchall():
        _ = connection.execute("delete from entries where id = ?", (claimed[0][0],))
        removed += 1
    ended = time.perf_counter()
    if removed != entries:
        raise RuntimeError(f"{removed} of {entries} entries were there")
    return entries / (enqueued - began), entries / (ended - enqueued)
