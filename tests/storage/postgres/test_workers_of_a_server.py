"""Workers that are killed, or stopped for longer than the server is patient: what they had is given to others, once.

Whoever was only taken for dead is told so when it settles.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from helpers import postgresql
from helpers.figures import Proof
from helpers.proofs import WHOLE
from helpers.schemas import tables_in, until
from helpers.stores import QUEUES, claim, release, remove
from helpers.toil import HELD, Holder, Workers, settle_down
from trio_multispool.storage.postgres.patience import Patience
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from helpers.schemas import Tables

pytestmark = [pytest.mark.postgresql, pytest.mark.proof]

PATIENT = Patience(answer=60.0, cut_off=60.0)
"""Of workers that a machine may keep waiting which has much else to do."""

KILLS = 12 if WHOLE else 3


def test_what_killed_workers_had_in_hand_is_back_and_done_once(tmp_path, count):
    """Killed at any moment, one after the other, while others go on."""
    server = postgresql.server()
    with tables_in(server, "killed") as tables, Workers(tmp_path, tables, PATIENT) as workers:
        url = server.url(tables.schema)
        PostgresStorage.open(url, QUEUES, create=True).close()
        owners = [workers.start(url) for _ in range(3)]
        for _ in range(KILLS):
            workers.go_on(5)
            owner = owners.pop(0)
            workers.kill(owner)
            until(lambda owner=owner: owner not in tables.owners(), "what it had is back")
            owners.append(workers.start(url))
        workers.end()
        _ = settle_down(url, tables, PATIENT)
        account = workers.account()
    count(Proof.WORKERS_OF_A_SERVER, kills=KILLS, **account.counts())
    assert account.faults == []
    assert account.lost == 0


def give_up(tables: Tables, owner: int) -> None:
    """End all sessions of an owner, as a server does that has heard nothing of its host for long enough."""
    for pid in tables.sessions(owner):
        tables.ask("SELECT pg_terminate_backend(%s)", pid)
    until(lambda: not tables.sessions(owner), "they have ended")


def test_a_worker_that_was_stopped_for_too_long_finds_out_that_others_have_done_its_work(tmp_path, count):
    """When it settles: and it goes on with other work."""
    server = postgresql.server()
    with tables_in(server, "stopped") as tables, Workers(tmp_path, tables, PATIENT) as workers:
        url = server.url(tables.schema)
        with (
            contextlib.closing(PostgresStorage.open(url, QUEUES, create=True, patience=PATIENT)) as other,
            Holder(url, PATIENT) as holder,
        ):
            owners = [workers.start(url) for _ in range(2)]
            workers.go_on()
            stopped = workers.running[owners[0]]
            for child in (stopped, holder.child):
                child.stop()
            for owner in (owners[0], holder.owner):
                give_up(tables, owner)
            until(lambda: not tables.owners() & {owners[0], holder.owner}, "what they had is back")
            workers.go_on()  # the other one takes what the first had
            taken = [claim(other, QUEUES[2], f"{HELD}{number}") for number in range(Holder.ENTRIES)]
            in_hand, given_back = taken[2:4], taken[4:]
            for claimed in taken[:2]:
                remove(other, claimed)
            for claimed in given_back:
                release(other, claimed)
            for child in (stopped, holder.child):
                child.go_on()
            for _ in range(Holder.ENTRIES):
                assert "OwnershipLost" in (holder.settle_one() or "")
            assert {name for name in tables.names() if name.startswith(HELD)} == {
                claimed.name for claimed in (*in_hand, *given_back)
            }
            for claimed in in_hand:
                remove(other, claimed)
            workers.go_on()
        workers.end()
        _ = settle_down(url, tables, PATIENT)
        account = workers.account()
    count(Proof.WORKERS_OF_A_SERVER, stops=2, **account.counts())
    assert account.faults == []
