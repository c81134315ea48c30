"""Servers that end sessions, restart, crash or are replaced, while several processes do what they can: see `Toil`.

Each time the ledgers are complete: what was acknowledged is there, or was removed, once; nothing belongs to anybody who
does not know it; and nobody who lives has lost what he had.
"""

from __future__ import annotations

import contextlib
import dataclasses
import urllib.parse

import psycopg
import pytest

from helpers import postgresql
from helpers.figures import Proof
from helpers.proofs import WHOLE
from helpers.schemas import tables_in, until
from helpers.stores import QUEUES
from helpers.toil import Holder, Workers, settle_down
from trio_multispool.storage.postgres.patience import Patience
from trio_multispool.storage.postgres.store import PostgresStorage

pytestmark = [pytest.mark.postgresql, pytest.mark.proof]

PATIENT = Patience(answer=60.0, cut_off=60.0, grace=8.0)
"""Of workers that a machine may keep waiting which has much else to do."""

PROCESSES = 3
RESTARTS = 5 if WHOLE else 2
FAILOVERS = 3 if WHOLE else 1
TERMINATED = 60 if WHOLE else 20

_TERMINATE = """
    SELECT pid, pg_terminate_backend(pid) FROM (
        SELECT min(pid) FILTER (WHERE number = %s %% sessions) AS pid FROM (
            SELECT pid, objid, classid, row_number() OVER (PARTITION BY classid, objid ORDER BY pid) - 1 AS number,
                count(*) OVER (PARTITION BY classid, objid) AS sessions
            FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted AND objsubid = 1
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (classid::bigint << 32) + objid::bigint IN (SELECT id FROM SCHEMA.owner)
        ) AS holding WHERE sessions > 1 GROUP BY classid, objid ORDER BY random() LIMIT 1
    ) AS chosen"""
"""Ends a session of an owner that has another one: without any, it would be dead."""


def test_sessions_that_are_ended_under_load_cost_nothing_and_nobody_is_taken_for_dead(tmp_path, count):
    """Whichever session it is, of operations or of a keeper, and whatever it is doing."""
    server = postgresql.server()
    with tables_in(server, "terminated") as tables, Workers(tmp_path, tables, PATIENT) as workers:
        url = server.url(tables.schema)
        PostgresStorage.open(url, QUEUES, create=True).close()
        for _ in range(PROCESSES):
            _ = workers.start(url)
        ended = 0
        while ended < TERMINATED:
            ended += sum(done for pid, done in tables.ask(_TERMINATE, ended) if pid is not None)
            workers.go_on(5)
        workers.end()
        assert workers.recovered == []
        assert settle_down(url, tables, PATIENT) == []
        account = workers.account()
    count(Proof.TERMINATED, sessions=ended, **account.counts())
    assert account.faults == []
    assert account.lost == 0
    assert account.unknown == 0
    assert account.removed > ended


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_server_that_restarts_under_load_costs_nothing_that_was_acknowledged(tmp_path, how, count):
    """Who has something in hand keeps it; but a crash may undo a check-out after which nothing durable was done."""
    with (
        postgresql.own_server(tmp_path) as server,
        tables_in(server, "restarted") as tables,
        Workers(tmp_path, tables, PATIENT) as workers,
    ):
        url = server.url(tables.schema)
        PostgresStorage.open(url, QUEUES, create=True).close()
        with Holder(url, PATIENT) as holder:
            for _ in range(PROCESSES):
                _ = workers.start(url)
            for _ in range(RESTARTS):
                workers.go_on()
                server.tell(f"stop {how}")
                server.tell("start")
                workers.go_on()
                assert holder.settle_one() is None
            assert holder.settle_all() == {None}
            workers.end()
        tables.connect_again(server)
        assert workers.recovered == []
        assert settle_down(url, tables, PATIENT) == []
        account = workers.account()
    count(Proof.RESTARTED, restarts=RESTARTS, **account.counts())
    assert account.faults == []
    assert account.lost == 0 or how == "immediate"
    assert account.unknown == 0


def test_owners_of_before_a_restart_are_not_judged_before_they_had_time_to_come_back(tmp_path, count):
    """One that is stopped meanwhile has no session with the new server; it goes on in time, and has lost nothing."""
    patience = dataclasses.replace(PATIENT, grace=60.0)
    with postgresql.own_server(tmp_path) as server, tables_in(server, "restarted") as tables:
        url = server.url(tables.schema)
        PostgresStorage.open(url, QUEUES, create=True).close()
        with Holder(url, patience) as holder:
            holder.child.stop()
            server.tell("stop fast")
            server.tell("start")
            tables.connect_again(server)
            with contextlib.closing(PostgresStorage.open(url, QUEUES, patience=patience)) as other:
                assert other.recovered_at_first == []
                assert other.recover() == []
                holder.child.go_on()
                assert holder.settle_one() is None
                holder.child.process.kill()  # and then it is judged, because it has come back

                def is_back() -> bool:
                    _ = other.recover()
                    return len(other.names(QUEUES[2])) == Holder.ENTRIES - 1

                until(is_back, "what it has not settled is available again")
    count(Proof.RESTARTED, restarts=1, bad=0)


@pytest.mark.parametrize("_number", range(FAILOVERS))
def test_a_synchronous_standby_takes_over_and_nothing_that_was_acknowledged_is_missing(tmp_path, count, _number):
    """Who has something in hand settles it on the other server, which has none of the old one's locks."""
    with (
        postgresql.own_server(tmp_path, max_wal_senders="5") as first,
        postgresql.own_server(tmp_path, copy_of=first) as second,
    ):
        with psycopg.connect(first.base, autocommit=True) as administrator:
            administrator.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            administrator.execute("SELECT pg_reload_conf()")
            followed = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            until(lambda: administrator.execute(followed).fetchone(), "it is followed")
        ports = [urllib.parse.urlsplit(each.base).port for each in (first, second)]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        both = dataclasses.replace(first, base=f"postgresql://multispool@{hosts}/postgres")
        with tables_in(first, "replaced") as tables, Workers(tmp_path, tables, PATIENT) as workers:
            url = both.url(tables.schema)
            PostgresStorage.open(url, QUEUES, create=True).close()
            with Holder(url, PATIENT) as holder:
                for _ in range(PROCESSES):
                    _ = workers.start(url)
                workers.go_on()
                assert holder.settle_one() is None
                first.tell("stop immediate")
                second.execute("SELECT pg_promote()")
                workers.go_on()
                assert holder.settle_all() == {None}
                workers.end()
            tables.connect_again(second)
            assert workers.recovered == []
            assert settle_down(url, tables, PATIENT) == []
            account = workers.account()
    count(Proof.FAILED_OVER, failovers=1, **account.counts())
    assert account.faults == []
    assert account.unknown == 0
