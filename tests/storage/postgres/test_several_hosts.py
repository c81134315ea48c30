"""Several hosts with a server that is at another one: one of them dies, and one is cut off and joined again.

The hosts are network namespaces, each with an address of its own. Nothing is lost, and nothing is settled twice.
"""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from helpers import namespaces
from helpers.figures import Proof
from helpers.greeting import AT_A_TIME, Work, Worker, judge
from helpers.hosts import at, server_at, tables_at
from helpers.schemas import until
from helpers.stores import QUEUES
from helpers.toil import Holder, Workers, settle_down
from trio_multispool.storage.postgres.patience import Patience
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.namespaces import Network

pytestmark = [pytest.mark.postgresql, pytest.mark.proof]

QUICK = Patience(answer=60.0, every=0.5, cut_off=2.0, given_up=6, connect=2)
"""Who was cut off knows after 2 seconds, and the server after 6."""


@pytest.fixture
def network() -> Iterator[Network]:
    """Make three hosts; the server is to be at the last."""
    if reason := namespaces.why_not():
        pytest.skip(reason)
    with namespaces.network(3) as made:
        yield made


def test_of_two_hosts_one_is_cut_off_and_joined_again_and_one_dies(network, tmp_path, count):
    """Who was cut off knows that it has lost its entries before others get them; or learns it, if it was stopped."""
    first, second, third = network.hosts
    with (
        server_at(network, third, tmp_path) as server,
        tables_at(third, server, "hosts") as tables,
        Workers(tmp_path, tables, QUICK) as workers,
    ):
        url = server.url(tables.schema)
        at(third, lambda: PostgresStorage.open(url, QUEUES, create=True).close())
        with Holder(url, QUICK, first) as holder, Holder(url, QUICK, first, called="stopped") as stopped:
            _, dying = workers.start(url, first), workers.start(url, second)
            workers.go_on()
            stopped.child.stop()
            network.cut_off(first)
            holder.child.tell("await loss")
            until(lambda: holder.owner not in tables.owners(), "what it had is given away", every=0.001)
            given_away = time.monotonic()
            [lost] = holder.child.hear()
            assert lost < given_away
            until(lambda: stopped.owner not in tables.owners(), "what the one had that was stopped is given away")
            workers.go_on()
            network.join(first)
            stopped.child.go_on()
            for each in (holder, stopped):
                assert "OwnershipLost" in (each.settle_one() or "")
            workers.go_on()
            workers.kill(dying)
            until(lambda: dying not in tables.owners(), "what it had is back")
            workers.go_on()
            workers.end()
        at(third, lambda: settle_down(url, tables, QUICK))
        account = workers.account()
    count(Proof.HOSTS, hosts_cut_off=1, hosts_dead=1, **account.counts())
    assert account.faults == []


@pytest.mark.program
def test_a_program_that_works_on_a_directory_works_unchanged_at_two_hosts(network, tmp_path, count):
    """One is killed, and one is cut off and joined again, while others are given its work."""
    first, second, third = network.hosts
    with (
        server_at(network, third, tmp_path) as server,
        tables_at(third, server, "greetings") as tables,
        Work(server.url(tables.schema), third) as work,
        contextlib.ExitStack() as stack,
    ):

        def start(host: str) -> Worker:
            return stack.enter_context(Worker(tmp_path, server.url(tables.schema), host))

        cut_off, dying = workers = [start(first), start(second)]
        for worker in workers:
            worker.go_on()
        dying.kill()
        workers.append(start(second))
        workers[-1].go_on()
        owner_of = "SELECT id FROM SCHEMA.owner WHERE pid = %s"
        [(owner,)] = tables.ask(owner_of, cut_off.process.pid)
        network.cut_off(first)
        until(lambda: owner not in tables.owners(), "what it had is given away")
        greeted = cut_off.greeted()
        workers[-1].go_on()
        network.join(first)
        cut_off.go_on()
        if cut_off.has_ended():  # it was told what it has lost: whoever runs it starts it again
            workers.append(start(first))
            workers[-1].go_on()
        names = work.end()
        for worker in workers:
            if not worker.has_ended():
                worker.stop()
        verdict = judge(names, workers, [dying.greeted(), greeted])
    numbers = {"entries_greeted": len(names), "greeted_again": verdict.twice}
    count(Proof.HOSTS, hosts_cut_off=1, hosts_dead=1, **numbers, bad=len(verdict.faults))
    assert verdict.faults == []


@pytest.mark.program
def test_the_same_program_works_on_a_directory(tmp_path):
    """Where one of two is killed."""
    place = str(tmp_path / "spool")
    with Work(place) as work, Worker(tmp_path, place) as dying, Worker(tmp_path, place) as other:
        dying.go_on()
        dying.kill()
        other.go_on()
        names = work.end()
        other.stop()
        assert judge(names, [dying, other], [dying.greeted()]).faults == []


def test_the_judge_of_greetings_sees_what_is_missing_and_what_is_done_again():
    """But for the last ones of who died, so many as it works on at a time."""
    names = [str(number) for number in range(40)]
    one, other = (SimpleNamespace(greeted=lambda part=part: part) for part in (names[:30], names[26:]))
    assert judge(names, [one, other], [names[:30]]) == ([], 4)
    assert len(judge(names, [one, other], []).faults) == 4
    assert judge(names[1:], [one, other], [names[:30]]).faults == ["0 was greeted, and nobody asked for it"]
    assert judge([*names, "more"], [one, other], [names[:30]]).faults == ["more was not greeted"]
    early = SimpleNamespace(greeted=lambda: names[3:])
    assert len(judge(names, [one, early], [names[:30]]).faults) > AT_A_TIME
