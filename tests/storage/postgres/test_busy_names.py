"""Names that others have: a program in a transaction that it has not committed, or a process that has died."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from helpers import postgresql
from helpers.finding import Aside, side_by_side
from helpers.schemas import tables_in, until
from helpers.stores import DATA, OLD, QUEUES, enqueue_reserved, nothing
from trio_multispool import EntryBusy
from trio_multispool.storage.postgres.store import PostgresStorage
from trio_multispool.storage.requests import NewEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.schemas import Tables

pytestmark = pytest.mark.postgresql

LARGE = bytes(100_000)


@pytest.fixture
def tables() -> Iterator[Tables]:
    """Look at the tables of a spool."""
    with tables_in(postgresql.server(), "busy") as tables:
        yield tables


@pytest.fixture
def store(tables: Tables) -> Iterator[PostgresStorage]:
    """Open it."""
    store = PostgresStorage.open(postgresql.server().url(tables.schema), QUEUES, create=True)
    yield store
    store.close()


_NOTE_PATIENCE = """
    CREATE TABLE SCHEMA.patience (name text, milliseconds integer);
    CREATE FUNCTION SCHEMA.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO SCHEMA.patience
            SELECT NEW.name, setting::integer FROM pg_settings WHERE name = 'lock_timeout';
            RETURN NULL;
        END
    $$;
    CREATE TRIGGER note AFTER INSERT ON SCHEMA.entry FOR EACH ROW EXECUTE FUNCTION SCHEMA.note()"""


@pytest.fixture
def noted(store: PostgresStorage, tables: Tables) -> Callable[[], dict[str, int]]:
    """Return a function that tells how long a lock would have been waited for where entries were made."""
    tables.ask(_NOTE_PATIENCE)
    return lambda: dict(tables.ask("SELECT name, milliseconds FROM SCHEMA.patience"))


@pytest.fixture
def program(store: PostgresStorage, tables: Tables) -> Iterator[psycopg.Connection]:
    """Begin the transaction of a program, which enqueues some names and does not commit."""
    with psycopg.connect(postgresql.server().base) as program:
        for name in ("x", "y", "z"):
            program.execute(f"SELECT \"{tables.schema}\".enqueue('send', '{{}}', name => %s)".encode(), (name,))
        yield program
        program.rollback()


def refusal(store: PostgresStorage, name: str, data: bytes, *, reserves: bool) -> BaseException:
    """Try to enqueue; return why it cannot be done."""
    with pytest.raises(EntryBusy) as refused:
        enqueue_reserved(store, store.reserve(name, briefly=not reserves), "send", OLD, data)
    return refused.value


def test_nobody_waits_for_long_for_a_name_in_a_transaction_that_is_open(store, program):
    """A program may take as long as it likes; that the name is busy is told soon, however it is wanted."""
    refusals = side_by_side(
        lambda: refusal(store, "x", DATA, reserves=False),
        lambda: refusal(store, "y", LARGE, reserves=False),
        lambda: refusal(store, "z", DATA, reserves=True),
    )
    assert [each.name for each in refusals] == ["x", "y", "z"]
    program.rollback()
    enqueue_reserved(store, store.reserve("x", briefly=True), "send", OLD, DATA)


def test_busy_names_hold_up_nobody_else(store, noted, program):
    """Others that share a commit with them are made all the same, and need not wait for each of them for long."""
    names = ["x", "a", "y", "b", "z"]
    wanted = [NewEntry(store.reserve(each, briefly=True), "send", OLD, DATA, None, nothing) for each in names]
    failures = Aside(lambda: store.enqueue_together(wanted)).result()
    assert [type(each).__name__ for each in failures] == ["EntryBusy", "NoneType", "EntryBusy", "NoneType", "EntryBusy"]
    assert store.names("send") == ["a", "b"]
    waits = noted()
    assert set(waits) == {"a", "b"}
    assert all(0 < each * store.at_a_time() <= 5_000 for each in waits.values()), "a whole batch takes seconds"


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
def test_a_name_that_the_dead_had_reserved_is_free(store, tables, data):
    """Whatever is enqueued under it."""
    store.reserve("a").abandon()
    until(lambda: tables.held() == [("a", 0)], "it was let go of")
    enqueue_reserved(store, store.reserve("a", briefly=True), "send", OLD, data)
    assert store.names("send") == ["a"]
