"""Connections that are lost at every request of every operation, in every way: nothing is lost, doubled or misreported.

A proxy stands between the store and the server, and loses the connection at the n-th request. The store must find out
by itself whether its change took place. So each operation succeeds, once; or it is refused, and nothing has changed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import urllib.parse
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from helpers import postgresql
from helpers.figures import Proof
from helpers.finding import Reader
from helpers.proofs import thinned
from helpers.proxies import Loss, Point, Proxy
from helpers.schemas import tables_in, until
from helpers.stores import (
    DATA,
    OLD,
    OPERATIONS,
    QUEUES,
    ask_to_cancel,
    claim,
    enqueue,
    enqueue_reserved,
    nothing,
    read_data,
    replace_data,
    writing,
)
from trio_multispool.errors import DurabilityUnknown, SpoolError, StoreUnreachable
from trio_multispool.storage.postgres.patience import Patience
from trio_multispool.storage.postgres.store import PostgresStorage
from trio_multispool.storage.requests import NewEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.schemas import Tables

pytestmark = [pytest.mark.postgresql, pytest.mark.proof]

BIG = b"0123456789abcdef" * 40_000
"""Data that is stored in chunks."""


def take_first(storage: Any, name: str, _: Any) -> list[Any]:
    """Check out what is first, without naming it."""
    [(claimed, _)] = reader_of(storage).ask(most=3).claims
    assert claimed.name == name
    return [claimed]


class Opened:
    """A door that refuses nothing, so that nobody is asked."""

    ignored: frozenset[str] = frozenset()
    admits = True

    def leave(self, _admission: Any) -> None:
        """Do nothing."""


def reader_of(storage: Any) -> Reader:
    """Return a reader that takes whatever comes first."""
    reader = Reader(storage, door=Opened())  # type: ignore[arg-type]
    reader.call = functools.partial(Reader.call, reader)  # type: ignore[method-assign]
    return reader


def remember(storage: Any, _name: str, reservation: Any) -> None:
    """Remember a name that was reserved."""
    storage.remember(reservation, 1000.0, durability=None)


def enqueue_several(storage: Any, name: str, _: Any) -> None:
    """Enqueue under names that nobody else makes, as most are."""
    reserved = [storage.reserve(f"{name}{letter}", unique=True) for letter in ("", "b", "c")]
    for failure in storage.enqueue_together([NewEntry(each, "send", OLD, DATA, None, nothing) for each in reserved]):
        if failure is not None:
            raise failure


def enqueue_or_give_up(storage: Any, name: str, data: bytes) -> None:
    """Reserve and enqueue, as the spool does: a reservation that was of no use is given up."""
    reservation = storage.reserve(name)
    try:
        enqueue_reserved(storage, reservation, "send", OLD, writing(data))
    except SpoolError:
        storage.give_up(reservation)
        raise


def annotate(storage: Any, _name: str, claimed: Any) -> None:
    """Note something."""
    storage.annotate(claimed, "note", b'"it"')


def checked_out(storage: Any, name: str) -> Any:
    """Make an entry, and check it out."""
    enqueue(storage, "send", name)
    return claim(storage, "send", name)


MORE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "check out the first": (lambda s, n: enqueue(s, "send", n), take_first),
    "remember": (lambda s, n: s.reserve(n), remember),
    "enqueue several": (lambda s, n: None, enqueue_several),
    "enqueue": (lambda s, n: None, lambda s, n, _: enqueue_or_give_up(s, n, DATA)),
    "enqueue much": (lambda s, n: None, lambda s, n, _: enqueue_or_give_up(s, n, BIG)),
    "ask to cancel": (checked_out, lambda s, n, _: ask_to_cancel(s, n)),
    "data save, much": (checked_out, lambda s, n, claimed: replace_data(s, n, claimed, BIG)),
    "annotate": (checked_out, annotate),
    "read": (lambda s, n: enqueue(s, "send", n), lambda s, n, _: read_data(s, n)),
    "read much": (lambda s, n: enqueue(s, "send", n, data=BIG), lambda s, n, _: read_data(s, n)),
    "read an entry": (
        lambda s, n: enqueue(s, "send", n),
        lambda s, n, _: s.read_entry("send", n, lambda metadata, stat, data: data.read()),
    ),
    "count": (lambda s, n: enqueue(s, "send", n), lambda s, n, _: (s.count(), s.depths(), list(s.inventory()))),
}

EVERYTHING = {**OPERATIONS, **MORE}


class Bench(NamedTuple):
    """A store behind a proxy, and its tables."""

    proxy: Proxy
    tables: Tables
    storage: PostgresStorage


@contextlib.contextmanager
def bench_of(patience: Patience, *, pooled: bool = False) -> Iterator[Bench]:
    """Open a store whose connections go through a proxy: all of them, or only those that a pooler might lend."""
    server = postgresql.server()
    place = urllib.parse.urlsplit(server.base)
    assert place.hostname is not None
    with tables_in(server, "lost") as tables, Proxy(place.hostname, place.port or 5432) as proxy:
        there = f"127.0.0.1:{proxy.port}"
        behind = place._replace(netloc=f"{place.netloc.rpartition('@')[0]}@{there}")
        url = (
            server.url(tables.schema, pool=there)
            if pooled
            else f"{behind.geturl()}{'&' if place.query else '?'}spool={tables.schema}"
        )
        storage = PostgresStorage.open(url, QUEUES, create=True, patience=patience)
        try:
            yield Bench(proxy, tables, storage)
        finally:
            proxy.shut = False
            storage.close()


QUIET = Patience(every=3600.0, deaths_every=3600.0)
"""Of a keeper that asks for nothing by itself."""


@pytest.fixture(scope="module", params=[False, True], ids=["direct", "pooled"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Open a store whose connections can be lost, one for all operations."""
    with bench_of(QUIET, pooled=request.param) as made:
        yield made


def holds_nothing(bench: Bench) -> bool:
    """Tell whether nothing is left that anybody has, once it is recovered what was let go of."""
    bench.storage.recover()
    for each in bench.storage.recover_all():
        assert not isinstance(each, SpoolError), each
    return not bench.tables.held()


def let_go(prepared: Any) -> None:
    """Let go of what was prepared for an operation."""
    if hasattr(prepared, "abandon"):
        prepared.abandon()


def is_over(made: Any) -> None:
    """Let go of what an operation returned."""
    for each in made if isinstance(made, list) else [made]:
        if hasattr(each, "abandon"):
            each.abandon()


def without_fault(bench: Bench, operation: str) -> tuple[list[str], list[Any], list[Any]]:
    """Do it once; return what the server is asked for, and what is there before and after it."""
    prepare, act = EVERYTHING[operation]
    bench.tables.clear()
    prepared = prepare(bench.storage, "a")
    settle_down(bench)
    before = bench.tables.entries()
    bench.proxy.count()
    made = act(bench.storage, "a", prepared)
    requests = bench.proxy.stop_counting()
    after = bench.tables.entries()
    is_over(made)
    let_go(prepared)
    del made, prepared
    until(lambda: holds_nothing(bench), "nobody has anything any more")
    return requests, before, after


def settle_down(bench: Bench) -> None:
    """Wait until what was let go of is let go of."""
    keeper = bench.storage._context.keeper
    assert keeper is not None
    until(lambda: not keeper._has_something_to_do(), "the keeper has done what it was told")


class Outcome(NamedTuple):
    """How an operation went whose connection was lost."""

    error: BaseException | None
    fault: str
    """In words; empty if nothing was wrong."""


def lose_once(bench: Bench, operation: str, point: Point, before: list[Any], after: list[Any]) -> Outcome:
    """Do it with a loss; see that what it answers is so, that nobody keeps anything, and that it can be done then."""
    prepare, act = EVERYTHING[operation]
    bench.tables.clear()
    made = error = None
    prepared = prepare(bench.storage, "a")
    settle_down(bench)
    bench.proxy.count(point)
    try:
        made = act(bench.storage, "a", prepared)
    except SpoolError as raised:
        error = raised.with_traceback(None)
        error.__context__ = error.__cause__ = None
    bench.proxy.stop_counting()
    found = bench.tables.entries()
    fault = ""
    if error is None and found != after:
        fault = f"it is said to be done, and is not: {found}"
    elif isinstance(error, DurabilityUnknown):
        fault = "the server was there, and it is said not to be known"
    elif error is not None and not isinstance(error, StoreUnreachable):
        fault = f"it is misreported as {error!r}"
    if error is not None and not fault:
        # A claim that nobody got may take a moment to be let go of.
        try:
            until(
                lambda: (bench.storage.recover() and False) or bench.tables.entries() in (before, found),
                "it is as before",
                5,
            )
            until(lambda: (bench.storage.recover() and False) or bench.tables.entries() == before, "it is as before", 5)
        except AssertionError:
            fault = f"it is said not to be done, and there is {bench.tables.entries()}"
    is_over(made)
    let_go(prepared)
    del made, prepared
    _ = gc.collect(0)
    try:
        until(lambda: holds_nothing(bench), "nobody has anything any more", 5)
    except AssertionError:
        fault = fault or f"somebody has it who does not know: {bench.tables.held()}"
    if bench.tables.stray_chunks():
        fault = fault or "parts of data are left"
    return Outcome(error, fault)


def ways_of(sql: str) -> list[Loss]:
    """Return how a connection may be lost at a request."""
    in_transaction = sql.startswith(("BEGIN", "COMMIT")) or " AS link" not in sql
    return [each for each in Loss if not (each is Loss.OVERDUE and in_transaction)]


@pytest.mark.parametrize("operation", EVERYTHING)
def test_whenever_a_connection_is_lost_the_answer_is_right_and_the_change_was_made_once_or_not(bench, operation, count):
    """At each request, in each way: what is acknowledged is there, once, and what is refused is not."""
    requests, before, after = without_fault(bench, operation)
    points = [Point(n, loss) for n, sql in enumerate(requests, 1) for loss in ways_of(sql)]
    faults = {}
    lost = bench.proxy.lost
    for point in thinned(points, 5, kind=lambda point: point.loss):
        fault = lose_once(bench, operation, point, before, after).fault
        if fault:
            faults[point] = fault
    count(Proof.LOST_CONNECTIONS, connections=bench.proxy.lost - lost, bad=len(faults))
    assert not faults, "\n".join(
        f"{point.loss.value}, at {' '.join(requests[point.number - 1].split())[:60]}: {fault}"
        for point, fault in faults.items()
    )
    assert bench.proxy.lost > lost or not requests
