"""A store that is opened to look: it has no owner, so it makes no changes, and has no rows of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers.postgresql import server
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
