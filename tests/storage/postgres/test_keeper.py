"""What a process has in hand, and when its keeper takes it for lost: only if nobody else would know better."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from helpers import postgresql
from helpers.children import Child
from helpers.losing import bench
from helpers.proxies import Loss, Point
from helpers.schemas import until
from helpers.stores import DATA, OLD, QUEUES, claim, enqueue, enqueue_reserved, is_available, release, remove
from trio_multispool import Durability, OwnershipLost, StoreUnreachable
from trio_multispool.storage.postgres import keeper as keeper_module
from trio_multispool.storage.postgres.patience import PATIENT, Patience
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.losing import Bench

pytestmark = pytest.mark.postgresql


@pytest.fixture
def patient() -> Iterator[Bench]:
    """Open a store that reaches its server through a proxy."""
    with bench(PATIENT) as made:
        yield made


@pytest.fixture
def other(patient: Bench) -> Iterator[PostgresStorage]:
    """Open the same spool once more, on a way of its own."""
    other = PostgresStorage.open(postgresql.server().url(patient.tables.schema), QUEUES)
    yield other
    other.close()


def test_an_entry_that_was_lost_and_comes_again_is_not_lost_again(patient, other):
    """The work on the first check-out may go on for as long as it likes; the second is not cancelled for it."""
    proxy, _, store = patient
    enqueue(store, "send", "a")
    first = claim(store, "send", "a")
    proxy.shut = True
    proxy.cut_all()
    until(other.recover, "somebody else has put it back")
    proxy.shut = False
    until(lambda: first.lost, "its owner has noticed")
    assert store.asked_to_cancel() == ["a"]
    second = claim(store, "send", "a")
    assert store.asked_to_cancel() == []
    assert store.cancellation("send", "a") is None
    with pytest.raises(OwnershipLost):
        remove(store, first)
    remove(store, second)


class Jumping:
    """Time that goes on by itself, and jumps when it is told to."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def stopwatch(self) -> Callable[[], float]:
        """Begin to measure."""
        began = time.monotonic() + self.ahead
        return lambda: time.monotonic() + self.ahead - began


def test_a_process_that_was_paused_itself_gives_the_server_its_time_to_answer(monkeypatch):
    """Whether by a debugger, a signal, or a call that holds the interpreter: nobody has given its entries away."""
    times = Jumping()
    monkeypatch.setattr(keeper_module, "stopwatch", times.stopwatch)
    with bench(Patience(every=10.0, cut_off=30.0)) as (proxy, _, store):
        enqueue(store, "send", "a")
        held = claim(store, "send", "a")
        keeper: Any = store._context.keeper
        proxy.delay = 0.3
        times.ahead = 60.0
        keeper.poke()
        until(lambda: held.lost or keeper._answered() < 30, "the keeper has asked the server")
        assert not held.lost
        proxy.delay = 0.0
        release(store, held)


def test_silence_is_noticed_in_time_though_it_takes_longer_to_connect():
    """As it does to several hosts, or by slow names: it is in a thread of its own."""
    patience = Patience(cut_off=0.3, connect=120)
    with bench(patience) as (proxy, _, store):
        enqueue(store, "send", "a")
        held = claim(store, "send", "a")
        proxy.frozen = True
        proxy.cut_all()
        until(lambda: held.lost, "it is noticed", 60.0)
        proxy.frozen = False


_WAITS = "SELECT query_start FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"


def test_who_works_on_the_tables_for_a_while_is_not_taken_for_a_silent_server():
    """An administrator may rebuild an index: nothing is lost, and what is let go of meanwhile comes back then."""
    with bench(Patience(every=0.1, cut_off=4.0)) as (_, tables, store):
        another = PostgresStorage.open(postgresql.server().url(tables.schema), QUEUES)
        for name in ("a", "b"):
            enqueue(store, "send", name)
        held, left = claim(store, "send", "a"), claim(store, "send", "b")
        keeper: Any = store._context.keeper
        session, waits = keeper._control.pid, set()
        until(lambda: not keeper._alone, "it looks for the dead")

        def has_waited() -> bool:
            waits.update(tables.ask(_WAITS, session))
            return held.lost or len(waits) >= 3

        with psycopg.connect(postgresql.server().base) as administrator:
            administrator.execute(f'LOCK TABLE "{tables.schema}".entry, "{tables.schema}".owner'.encode())
            left.abandon()
            until(has_waited, "the keeper has waited for the tables several times")
            assert not held.lost
            PostgresStorage.open(postgresql.server().url(tables.schema), QUEUES, recover=False).close()
        until(lambda: is_available(store, "send", "b"), "it was let go of, and put back")
        assert keeper._control.pid == session
        release(store, held)
        another.close()


def test_a_server_that_falls_silent_while_a_spool_is_opened_is_told_of_in_words_of_ours(patient):
    """Where the keeper waits for it too, which asks in its own way."""
    proxy, tables, _ = patient
    url, patience = patient.storage._links.address.location, Patience(cut_off=0.2)
    proxy.count()
    PostgresStorage.open(url, QUEUES, patience=patience).close()
    asked = proxy.stop_counting()
    [number] = [number for number, sql in enumerate(asked, 1) if "lock_shared($1::bigint)" in sql]
    proxy.count(Point(number, Loss.SILENCE))
    with pytest.raises(StoreUnreachable, match="does not answer"):
        PostgresStorage.open(url, QUEUES, patience=patience)
    proxy.stop_counting()
    assert tables.names() == set()


def many_files(parent: Any, location: str) -> None:
    """Have more than a thousand files open, and then a spool."""
    import contextlib
    import os
    import resource

    from helpers.schemas import until
    from helpers.stores import QUEUES, claim, enqueue, release
    from trio_multispool.storage.postgres.store import PostgresStorage

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2000 if hard == resource.RLIM_INFINITY else min(hard, 2000), hard))
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(open(os.devnull))
        store = PostgresStorage.open(location, QUEUES)
        enqueue(store, "send", "a")
        held = claim(store, "send", "a")
        keeper: Any = store._context.keeper
        session = keeper._control.pid
        parent.say(session)
        until(lambda: keeper._control is not None and keeper._control.pid != session, "it has connected again")
        release(store, held)
        store.close()


def test_a_program_with_more_than_a_thousand_open_files_uses_a_spool_like_any_other(patient):
    """There are ways to wait for an answer that know no more than 1024 descriptors."""
    with Child(many_files, postgresql.server().url(patient.tables.schema)) as child:
        [session] = child.hear()
        patient.tables.ask("SELECT pg_terminate_backend(%s)", session)
        child.end()
    assert patient.tables.names("a") == {"a"}


def test_what_this_process_has_again_after_a_crash_of_the_server_is_let_go_of(tmp_path):
    """A release waits for no disk; if it is undone, nobody would know whose the entry is. What is in hand stays so."""
    with postgresql.own_server(tmp_path, wal_writer_delay="10s") as server:
        store = PostgresStorage.open(server.url("crashing"), QUEUES, create=True)
        for name in ("held", "released", "removed"):
            enqueue(store, "send", name)
        held, released, removed = (claim(store, "send", name) for name in ("held", "released", "removed"))
        reserved, given_up = store.reserve("reserved"), store.reserve("given up")
        enqueue(store, "send", "synced", durability=Durability.POWER)
        release(store, released)
        store.give_up(given_up)
        remove(store, removed, durability=Durability.PROCESS)
        server.tell("stop immediate")
        server.tell("start")

        def there() -> set[str]:
            _ = list(store.recover_all())
            owned = server.execute("SELECT name FROM crashing.entry WHERE owner IS NOT NULL")
            return {name for (name,) in owned}

        until(lambda: there() == {"held", "reserved"}, "nobody has what was given back")
        assert is_available(store, "send", "released")
        release(store, held)
        enqueue_reserved(store, reserved, "send", OLD, DATA)
        assert {"held", "reserved", "synced"} <= set(store.names("send"))
        store.close()
