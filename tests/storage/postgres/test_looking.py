"""A store that is opened to look: it has no owner, so it makes no changes, and has no rows of its own."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import pytest

from helpers import postgresql
from helpers.postgresql import server
from helpers.stores import claim, enqueue
from trio_multispool import DataNotFound
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.postgres import looks, standing, store
from trio_multispool.storage.postgres.store import PostgresStorage
from trio_multispool.storage.requests import LOOKED_AT

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


def test_check_outs_of_the_dead_are_counted_and_left(location):
    """Until a process recovers them, which who only looks does not."""
    with postgresql.unrecovered(location):
        owner, held = PostgresStorage.open(location), PostgresStorage.open(location)
        enqueue(owner, "send", "y")
        enqueue(owner, "send", "z")
        kept = [claim(owner, "send", "x"), claim(owner, "send", "y"), claim(held, "send", "z")]
        owner.close()
        postgresql.await_end(location, owner._links.owner)
        onlooker = PostgresStorage.look(location)
        for _ in range(2):
            [standing] = onlooker.standings()
            assert (standing.abandoned, standing.entries[State.CHECKED_OUT]) == (2, 3)
        held.recover()
        [standing] = onlooker.standings()
        assert (standing.abandoned, standing.entries[State.CHECKED_OUT]) == (0, 1)
        onlooker.close()
        held.close()
        assert len(kept) == 3


def test_a_look_for_metrics_reads_no_more_of_a_long_queue(location):
    """It goes by the indexes, from their beginning, and reads so many entries at most."""
    schema = postgresql.name_of(location)
    server().execute(
        f"SELECT count({schema}.enqueue('send', '1', name => 'n' || n)) FROM generate_series(1, 5000) AS n"
    )
    statement = standing._OLDEST.replace("SCHEMA.", f"{schema}.").replace("%(queues)s", "ARRAY['send']")
    plan = "\n".join(line for (line,) in server().execute(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) {statement}"))
    assert "Seq Scan" not in plan
    assert {int(number) for number in re.findall(r"actual rows=(\d+)", plan)} <= {0, 1, LOOKED_AT}


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
