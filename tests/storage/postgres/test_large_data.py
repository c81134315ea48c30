"""Large data, which go over the line in pieces: they take their time, are read again if need be, and leave nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helpers import postgresql
from helpers.losing import BIG, bench
from helpers.schemas import tables_in
from helpers.stores import OLD, QUEUES, claim, enqueue, enqueue_reserved, read_data, remove, replace_data
from trio_multispool.storage.postgres import link as link_module
from trio_multispool.storage.postgres.patience import Patience
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.schemas import Tables

pytestmark = pytest.mark.postgresql


@pytest.fixture
def tables() -> Iterator[Tables]:
    """Look at the tables of a spool."""
    with tables_in(postgresql.server(), "large") as tables:
        yield tables


@pytest.fixture
def store(tables: Tables) -> Iterator[PostgresStorage]:
    """Open it."""
    store = PostgresStorage.open(postgresql.server().url(tables.schema), QUEUES, create=True)
    yield store
    store.close()


@pytest.mark.parametrize("what", ["read", "read an entry", "enqueue", "replace"])
def test_a_transfer_may_take_longer_than_anybody_waits_for_an_answer(monkeypatch, what):
    """Between two pieces the server waits, but it has answered lately: that is no silence."""
    with bench(Patience(every=0.01)) as (proxy, tables, store):
        enqueue(store, "send", "a", data=BIG)
        monkeypatch.setattr(link_module, "stopwatch", lambda: lambda: 3600.0)  # everything takes long, all at once
        reserved = store.reserve("b", briefly=True)
        proxy.delay = 0.02
        match what:
            case "read":
                assert read_data(store, "a") == BIG
            case "read an entry":
                assert store.read_entry("send", "a", lambda metadata, _, file: (metadata, file.read())) == (OLD, BIG)
            case "enqueue":
                enqueue_reserved(store, reserved, "send", OLD, BIG)
            case _:
                replace_data(store, "a", None, BIG[1:])
        proxy.delay = 0.0
        assert tables.names() == ({"a", "b"} if what == "enqueue" else {"a"})


@pytest.mark.parametrize("remember", [None, 1000.0], ids=["forgotten", "remembered"])
def test_data_that_somebody_else_has_replaced_meanwhile_go_with_their_entry(store, tables, remember):
    """Its owner knows of small data, which are in its row, and not of the pieces."""
    enqueue_reserved(store, store.reserve("a"), "send", OLD, b"small", remember=remember)
    claimed = claim(store, "send", "a")
    replace_data(store, "a", None, BIG)
    remove(store, claimed)
    assert tables.names() == set()
    assert tables.ask("SELECT count(*) FROM SCHEMA.chunk") == [(0,)]


_CONFLICT = "DO $$ BEGIN RAISE 'canceling statement due to conflict with recovery' USING ERRCODE = '40001'; END $$"
"""As a standby does that must go on with what the first server has changed."""


def test_a_read_that_the_server_gives_up_for_others_is_made_again(store):
    """From its beginning, in a transaction of its own."""
    tries = []

    def read(connection: Any) -> Any:
        tries.append(connection)
        if len(tries) < 3:
            connection.execute(_CONFLICT)
        return connection.execute("SHOW transaction_isolation").fetchall()

    assert store._links.read_together("read the data of an entry in", read) == [("repeatable read",)]
    assert len(tries) == 3
