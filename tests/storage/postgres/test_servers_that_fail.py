"""Servers that end sessions, restart, crash or are replaced, while several processes do what they can: see `Toil`.

Each time the ledgers are complete: what was acknowledged is there, or was removed, once; nothing belongs to anybody who
does not know it; and nobody who lives has lost what he had.
"""

from __future__ import annotations

import pytest

from helpers import postgresql
from helpers.figures import Proof
from helpers.proofs import WHOLE
from helpers.schemas import tables_in
from helpers.stores import QUEUES
from helpers.toil import Workers, settle_down
from trio_multispool.storage.postgres.patience import Patience
from trio_multispool.storage.postgres.store import PostgresStorage

pytestmark = [pytest.mark.postgresql, pytest.mark.proof]

PATIENT = Patience(answer=60.0, cut_off=60.0, grace=8.0)
"""Of workers that a machine may keep waiting which has much else to do."""

PROCESSES = 3
TERMINATED = 120 if WHOLE else 30

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
