"""A server that takes connections and never answers: nobody waits for ever, and whoever was cut off is told.

TCP is content with such a peer. A proxy keeps silent for one connection, or for all; or a server's processes are
stopped. The times are short ones, but for the limits within which everything must have come to an end.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import postgresql
from helpers.figures import Proof
from helpers.finding import Aside
from helpers.losing import Bench, Case, bench, proxy_before, through
from helpers.proofs import every, thinned
from helpers.proxies import Loss, Point
from helpers.schemas import Tables, tables_in, until
from helpers.stores import OLD, QUEUES, claim, enqueue, nothing, remove, try_claim
from trio_multispool import OwnershipLost, Unavailable
from trio_multispool.errors import DurabilityUnknown, SpoolError, StoreUnreachable
from trio_multispool.storage.postgres.patience import Patience
from trio_multispool.storage.postgres.store import PostgresStorage
from trio_multispool.storage.requests import NewEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.postgresql import Server

pytestmark = [pytest.mark.postgresql, pytest.mark.proof]

IMPATIENT = Patience(answer=0.5, again=0.01, connect=1, every=0.1, cut_off=0.6, given_up=2, grace=1.0)

ENOUGH = 60.0
"""Within so many seconds all must have come to an end, on a machine that has much else to do."""


# One connection

OPERATIONS = ["check out the first", "enqueue", "restore", "save together", "data save, much"]


@pytest.fixture(scope="module", params=[False, True], ids=["direct", "pooled"])
def either(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Open a store whose connections can be silenced."""
    with bench(IMPATIENT, pooled=request.param) as made:
        yield made


@pytest.mark.parametrize("operation", thinned(OPERATIONS, 3))
def test_an_operation_whose_connection_falls_silent_ends_all_the_same(either, operation, count):
    """At each of its requests, and at each by which it connects again: it is done, or refused, and nothing is lost."""
    case = Case(either, operation)
    numbers = range(1, len(case.requests) + 1)
    points = [(Point(n, Loss.SILENCE),) for n in numbers]
    points += [(Point(1, Loss.ANSWER), Point(1 + later, Loss.SILENCE)) for later in (1, 2, 3)]
    faults = {}
    for each in (chosen := thinned(points, 6)):
        if fault := Aside(lambda each=each: case.lose(*each, may_be_unknown=True)).result():
            faults[each] = fault
    count(Proof.SILENCE, operations=1, connections_silenced=len(chosen), bad=len(faults))
    assert not faults


def test_a_store_is_not_opened_for_ever(count):
    """At whatever the server falls silent, of all that it is asked; but to make tables takes as long as it takes."""
    server = postgresql.server()
    with tables_in(server, "silent") as tables, proxy_before(server) as proxy:
        PostgresStorage.open(server.url(tables.schema), QUEUES[:1], create=True).close()
        url, number, opened = through(proxy, server).url(tables.schema), 0, None
        silenced = 0
        while opened is None:
            number += every(4)
            silenced += 1
            proxy.count(Point(number, Loss.SILENCE))
            try:
                opened = Aside(lambda: PostgresStorage.open(url, QUEUES, create=True, patience=IMPATIENT)).result()
            except StoreUnreachable:
                assert proxy.lost == silenced
            proxy.stop_counting()
        count(Proof.SILENCE, openings=silenced - 1, bad=0)
        with contextlib.closing(opened):
            enqueue(opened, "send", "a")
        assert number > 5


# All of them


class Scene:
    """A store with an entry in hand, of which nothing is heard any more; and somebody who sees the server."""

    def __init__(self, storage: PostgresStorage, tables: Tables) -> None:
        """Check out an entry, of two."""
        self.storage, self.tables = storage, tables
        for name in ("a", "b"):
            enqueue(storage, "send", name)
        self.held: Any = claim(storage, "send", "a")
        self._answers: dict[str, Aside] = {}

    def falls_silent(self) -> None:
        """Ask for this and that; whoever has something in hand must be told that it is lost."""
        storage = self.storage
        asked: dict[str, Callable[[], Any]] = {
            "enqueue": lambda: enqueue(storage, "send", "c"),
            "enqueue several": lambda: storage.enqueue_together(
                [NewEntry(storage.reserve(name, unique=True), "send", OLD, b"", None, nothing) for name in ("d", "e")]
            ),
            "check out": lambda: try_claim(storage, "send", "b"),
            "count": storage.count,
            "slot": lambda: storage.slot(range(3)),
        }
        self._answers = {what: Aside(act) for what, act in asked.items()}
        until(lambda: self.held.lost, "what is in hand is lost", ENOUGH)
        assert storage.asked_to_cancel() == ["a"]
        assert storage.cancellation("send", "a") is not None
        with pytest.raises(OwnershipLost):
            remove(storage, self.held)
        keeper = storage._context.keeper
        assert keeper is not None
        assert keeper.cut_off

    def answered(self) -> set[str]:
        """See that everybody has been told something; return the names of what may have been enqueued."""
        unknown: set[str] = set()
        for what, aside in self._answers.items():
            try:
                made = aside.result()
            except SpoolError as error:
                made = [error]
            for failure in made if isinstance(made, list) else []:
                assert isinstance(failure, (StoreUnreachable, DurabilityUnknown)), what
                if isinstance(failure, DurabilityUnknown):
                    assert not failure.committed
                    unknown.add(failure.name)
        return unknown

    def goes_on(self, unknown: set[str]) -> None:
        """See that nothing is lost, and that all can be done again."""
        storage, tables = self.storage, self.tables
        keeper = storage._context.keeper
        assert keeper is not None
        until(lambda: not keeper.cut_off, "the server is heard", ENOUGH)

        def is_back() -> bool:
            _ = list(storage.recover_all())
            return not tables.held()

        until(is_back, "all is available again", ENOUGH)
        assert {"a", "b"} <= tables.names() <= {"a", "b", *unknown}
        assert tables.names() == tables.names("a")
        with pytest.raises(OwnershipLost):
            remove(storage, self.held)
        for name in sorted(tables.names()):
            remove(storage, claim(storage, "send", name))
        enqueue(storage, "send", "f")
        assert storage.asked_to_cancel() == []
        assert storage.count() == sum(storage.depths().values()) == 1
        slots = [storage.slot(range(3)) for _ in range(3)]
        assert None not in slots, "one is held by somebody who does not know"
        assert storage.slot(range(3)) is None


def test_who_was_cut_off_by_a_silent_peer_loses_what_it_has_and_goes_on_when_that_speaks(count):
    """Its work is cancelled while the server still keeps its entries for it; everybody gets an answer."""
    server = postgresql.server()
    with tables_in(server, "silent") as tables, proxy_before(server) as proxy:
        url = through(proxy, server).url(tables.schema)
        with contextlib.closing(PostgresStorage.open(url, QUEUES, create=True, patience=IMPATIENT)) as storage:
            scene = Scene(storage, tables)
            proxy.frozen = True
            scene.falls_silent()
            assert dict(tables.held())["a"] == storage._links.owner, "it was given away before its owner knew"
            unknown = scene.answered()
            proxy.frozen = False
            scene.goes_on(unknown)
    count(Proof.SILENCE, cut_off=1, bad=0)


def test_a_process_in_another_place_gets_what_the_one_had_that_was_cut_off(count):
    """After the server has given it up, and not before the one that had it knows that it has lost it."""
    server = postgresql.server()
    with tables_in(server, "silent") as tables, proxy_before(server) as proxy:
        url = through(proxy, server).url(tables.schema)
        with (
            contextlib.closing(PostgresStorage.open(url, QUEUES, create=True, patience=IMPATIENT)) as storage,
            contextlib.closing(PostgresStorage.open(server.url(tables.schema), QUEUES, patience=IMPATIENT)) as other,
        ):
            scene = Scene(storage, tables)
            proxy.frozen = True
            scene.falls_silent()
            assert isinstance(try_claim(other, "send", "a"), Unavailable)
            proxy.cut_all()  # as the server does after a while

            def taken() -> Any:
                _ = other.recover()
                found = try_claim(other, "send", "a")
                return None if isinstance(found, Unavailable) else found

            held = until(taken, "it is given to somebody else", ENOUGH)
            _ = scene.answered()
            proxy.frozen = False
            remove(other, held)
            with pytest.raises(OwnershipLost):
                remove(storage, scene.held)
    count(Proof.SILENCE, cut_off=1, bad=0)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """Start a server that may be stopped."""
    with postgresql.own_server(tmp_path) as started:
        yield started


def processes_of(server: Server) -> list[int]:
    """Return the server's processes, the one first that starts others."""
    first = server.tell("tell")["pid"]
    return [first, *(int(pid) for pid in Path(f"/proc/{first}/task/{first}/children").read_text().split())]


def test_a_server_that_is_stopped_and_continued_has_lost_nothing(own, count):
    """As on a host that pauses its machines, or swaps."""
    with tables_in(own, "stopped") as tables:
        url = own.url(tables.schema)
        with contextlib.closing(PostgresStorage.open(url, QUEUES, create=True, patience=IMPATIENT)) as storage:
            scene = Scene(storage, tables)
            for pid in (stopped := processes_of(own)):
                os.kill(pid, signal.SIGSTOP)
            scene.falls_silent()
            unknown = scene.answered()
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            scene.goes_on(unknown)
    count(Proof.SILENCE, cut_off=1, bad=0)


def test_a_server_that_answers_slowly_after_it_was_silent_is_heard(count):
    """Even if each answer takes longer than what was left before this process had to take itself for cut off."""
    server = postgresql.server()
    with tables_in(server, "silent") as tables, proxy_before(server) as proxy:
        url = through(proxy, server).url(tables.schema)
        with contextlib.closing(PostgresStorage.open(url, QUEUES, create=True, patience=IMPATIENT)) as storage:
            keeper = storage._context.keeper
            assert keeper is not None
            proxy.frozen = True
            until(lambda: keeper.cut_off, "it is cut off", ENOUGH)
            proxy.delay, proxy.frozen = 0.15, False
            until(lambda: not keeper.cut_off, "the server is heard", ENOUGH)
            proxy.delay = 0.0
    count(Proof.SILENCE, cut_off=1, bad=0)
