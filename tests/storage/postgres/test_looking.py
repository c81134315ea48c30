"""A store that is opened to look: it has no owner, so it makes no changes, and has no rows of its own."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from helpers.postgresql import server
from trio_multispool import DataNotFound
from trio_multispool.storage.postgres import looks, store
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgresql


@pytest.fixture
def location() -> Iterator[str]:
    """Return where a spool is, with one entry."""
    name = f"looked_at_{os.getpid()}"
    server().drop(name)
    PostgresStorage.open(server().url(name), ["send"], create=True).close()
    server().execute(f"SELECT {name}.enqueue('send', '1', 'data', name => 'x')")
    yield server().url(name)
    server().drop(name)


def test_an_entry_is_read_as_a_whole(location):
    """As `multispool export` reads it: in a transaction, with the row locked."""
    storage = PostgresStorage.look(location)
    try:
        found = storage.read_entry("send", "x", lambda metadata, _stat, file: (metadata, file.read()))
    finally:
        storage.close()
    assert found == (b"1", b"data")
    assert server().execute(f"SELECT count(*) FROM {location.rpartition('=')[2]}.link WHERE owner = 0") == [(0,)]


def test_the_time_of_day_is_the_servers(location, monkeypatch):
    """Also for who only looks: what waits is due by that."""
    for module in (looks, store):
        monkeypatch.setattr(module, "wall_clock", lambda: time.time() - 3600)
    storage = PostgresStorage.look(location)
    try:
        assert abs(storage.now() - time.time()) < 1800
    finally:
        storage.close()


def test_data_of_which_a_part_is_gone_are_not_there(location):
    """They cannot be loaded, so nobody is told how large they are."""
    schema = location.rpartition("=")[2]
    storage = PostgresStorage.open(location)
    try:
        storage.replace_data("x", None, bytes(600_000), durability=None, before_commit=lambda: None)
        assert storage.stat_data("x").size == 600_000
        server().execute(f"DELETE FROM {schema}.chunk WHERE number = 1 RETURNING 1")
        with pytest.raises(DataNotFound):
            storage.stat_data("x")
        with pytest.raises(DataNotFound):
            storage.read_data("x", lambda file: file.read())
    finally:
        storage.close()
