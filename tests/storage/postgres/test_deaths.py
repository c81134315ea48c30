"""Processes that are killed: what they had is back, though a child of theirs lives on, and they are forgotten."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from helpers import postgresql
from helpers.children import Child
from helpers.forks import are_alive
from helpers.schemas import tables_in, until
from helpers.stores import QUEUES, enqueue, is_available
from trio_multispool.storage.postgres.patience import Patience
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.schemas import Tables

pytestmark = pytest.mark.postgresql


@pytest.fixture
def tables() -> Iterator[Tables]:
    """Make a spool."""
    with tables_in(postgresql.server(), "deaths") as tables:
        PostgresStorage.open(postgresql.server().url(tables.schema), QUEUES, create=True).close()
        yield tables


@pytest.fixture
def elected(tables: Tables) -> Iterator[PostgresStorage]:
    """Open it, in the process that looks for deaths."""
    storage = PostgresStorage.open(postgresql.server().url(tables.schema), QUEUES, patience=Patience(every=0.05))
    yield storage
    storage.close()


def fork_and_hold(parent: Any, location: str) -> None:
    """Check an entry out, and have a child that lives on."""
    import os
    import signal
    import warnings

    from helpers.stores import QUEUES, claim, read_data
    from trio_multispool.storage.postgres.store import PostgresStorage

    store = PostgresStorage.open(location, QUEUES)
    held = claim(store, "send", "a")
    with warnings.catch_warnings(action="ignore"):  # this process has threads, as any that forks and has a spool
        child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    read_data(store, "b")
    parent.say(child, held.held)
    parent.hear()


def test_what_a_process_had_is_back_when_it_is_killed_though_a_child_that_it_forked_lives_on(tables, elected):
    """The child has copies of its sockets, and does not keep its sessions alive with them; nor does it end them."""
    for name in ("a", "b"):
        enqueue(elected, "send", name)
    with Child(fork_and_hold, elected.location) as parent:
        child, held = parent.hear()
        try:
            assert held
            assert tables.names("c") == {"a"}
            parent.process.kill()
            until(lambda: is_available(elected, "send", "a"), "the entry is back")
            assert are_alive([child])
        finally:
            os.kill(child, signal.SIGKILL)


def hold_nothing(parent: Any, location: str) -> None:
    """Have the spool open."""
    from helpers.stores import QUEUES
    from trio_multispool.storage.postgres.store import PostgresStorage

    store = PostgresStorage.open(location, QUEUES)
    parent.say(store._links.owner)
    parent.hear()


def test_a_process_that_was_killed_is_forgotten(tables, elected):
    """Also if it had nothing. As long as it is known, somebody looks again and again whether it is dead."""
    with Child(hold_nothing, elected.location) as child:
        [owner] = child.hear()
        assert {known for (known,) in tables.ask("SELECT id FROM SCHEMA.owner")} == {owner, elected._links.owner}
        child.process.kill()
        until(lambda: not tables.ask("SELECT 1 FROM SCHEMA.owner WHERE id = %s", owner), "it is forgotten")


def hold(parent: Any, location: str) -> None:
    """Check an entry out."""
    from helpers.stores import QUEUES, claim
    from trio_multispool.storage.postgres.store import PostgresStorage

    held = claim(PostgresStorage.open(location, QUEUES), "send", "a")
    parent.say(held.held)
    parent.hear()


def test_the_one_that_looks_for_deaths_is_missed_as_soon_as_any_other(tables):
    """Its deputy does not wait until it is time to ask the server for the time."""
    location = postgresql.server().url(tables.schema)
    tables.ask("SELECT SCHEMA.enqueue('send', '1', '', name => 'a')")
    with Child(hold, location) as first:
        assert first.hear() == [True]
        deputy = PostgresStorage.open(location, QUEUES, patience=Patience(every=3600))
        try:
            first.process.kill()
            until(lambda: tables.names("a") == {"a"}, "the entry is back")
        finally:
            deputy.close()


def test_one_that_was_alone_hears_at_once_that_another_has_opened_the_spool(tables):
    """And misses it when it is killed."""
    location = postgresql.server().url(tables.schema)
    tables.ask("SELECT SCHEMA.enqueue('send', '1', '', name => 'a')")
    alone = PostgresStorage.open(location, QUEUES, patience=Patience(every=0.05))
    keeper = alone._context.keeper
    assert keeper is not None
    try:
        until(lambda: keeper._alone, "it knows that it is alone")
        keeper._patience = Patience(every=3600)
        with Child(hold, location) as other:
            assert other.hear() == [True]
            other.process.kill()
            until(lambda: tables.names("a") == {"a"}, "the entry is back")
    finally:
        alone.close()
