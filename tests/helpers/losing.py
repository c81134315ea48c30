"""Operations of a store on a server whose connections are lost on the way, and what must be so afterwards.

Each is done on entry `a`, in a schema that holds nothing else but what it needs. What is acknowledged must be there, at
once; what is refused must not be there, soon; and in the end nothing may belong to anybody.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import gc
import urllib.parse
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers import postgresql
from helpers.finding import Reader
from helpers.proxies import Proxy
from helpers.schemas import tables_in, until
from helpers.stores import (
    DATA,
    DUE,
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
from trio_multispool.storage.requests import NewEntry, Removing
from trio_multispool.storage.source import Claiming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.proxies import Point
    from helpers.schemas import Tables

BIG = b"0123456789abcdef" * 40_000
"""Data that is stored in chunks."""

QUIET = Patience(every=3600.0, deaths_every=3600.0, again=0.005)
"""Of a keeper that asks for nothing by itself."""

SOON = 5.0
"""What has to become of a change that was refused has become of it, in seconds."""


class Open:
    """A gate that is open to all, so that nobody is asked."""

    ignored: frozenset[str] = frozenset()
    admits = True

    def leave(self, _admission: Any) -> None:
        """Do nothing."""


def take_first(storage: Any, name: str, _: Any) -> list[Any]:
    """Check out what is first, without naming it."""
    reader = Reader(storage, door=Open())  # type: ignore[arg-type]
    [(claimed, _)] = reader.ask(most=3).claims
    assert claimed.name == name
    return [claimed]


def reserve_and_enqueue(storage: Any, name: str, data: bytes = DATA, **options: Any) -> None:
    """Reserve and enqueue, as the spool does: a reservation that was of no use is given up."""
    reservation = storage.reserve(name)
    try:
        enqueue_reserved(storage, reservation, "send", OLD, writing(data), **options)
    except SpoolError:
        reservation.abandon()
        raise


def enqueue_several(storage: Any, name: str, _: Any) -> None:
    """Enqueue under names that nobody else makes, as most are."""
    reserved = [storage.reserve(f"{name}{letter}", unique=True) for letter in ("", "b", "c")]
    _raise_any(storage.enqueue_together([NewEntry(each, "send", OLD, DATA, None, nothing) for each in reserved]))


def checked_out(storage: Any, name: str) -> Any:
    """Make an entry, and check it out."""
    enqueue(storage, "send", name)
    return claim(storage, "send", name)


class Taken(NamedTuple):
    """What a source has given, and which has listed more."""

    claim: Any
    source: Any

    def abandon(self) -> None:
        """Let it go."""
        self.claim.abandon()


def first_of_two(storage: Any, name: str) -> Taken:
    """Make an entry, and one that comes after it, and check the first out."""
    for each in (name, "b"):
        enqueue(storage, "send", each)
    reader = Reader(storage, door=Open())  # type: ignore[arg-type]
    [(claimed, _)] = reader.ask().claims
    assert claimed.name == name
    return Taken(claimed, reader.source)


def settle_and_take(storage: Any, _name: str, first: Taken) -> list[Any]:
    """Remove one, and check out the next in the same step, if there is still one to be had."""
    taken: list[Any] = []

    def take(_look: Any, claim_next: Callable[[], Any]) -> None:
        with contextlib.suppress(SpoolError):  # told to who asked for the next one
            taken.extend(each for each, _ in claim_next().claims)

    how = (first.source, None, Open(), lambda: False, take, contextvars.copy_context())
    _raise_any(storage.settle([Removing(first.claim, None, nothing, then=Claiming(*how))]))  # type: ignore[arg-type]
    return taken


def _raise_any(failures: list[BaseException | None]) -> None:
    for failure in failures:
        if failure is not None:
            raise failure


CHANGING: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    **OPERATIONS,
    "enqueue": (lambda s, n: None, lambda s, n, _: reserve_and_enqueue(s, n)),
    "enqueue to wait": (lambda s, n: None, lambda s, n, _: reserve_and_enqueue(s, n, due_at=DUE)),
    "enqueue several": (lambda s, n: None, enqueue_several),
    "enqueue much": (lambda s, n: None, lambda s, n, _: reserve_and_enqueue(s, n, BIG)),
    "remember": (lambda s, n: s.reserve(n), lambda s, _n, reserved: s.remember(reserved, 1000.0, durability=None)),
    "check out the first": (lambda s, n: enqueue(s, "send", n), take_first),
    "settle and check out": (first_of_two, settle_and_take),
    "data save, much": (checked_out, lambda s, n, claimed: replace_data(s, n, claimed, BIG)),
    "annotate": (checked_out, lambda s, _n, claimed: s.annotate(claimed, "note", b'"it"')),
    "ask to cancel": (checked_out, lambda s, n, _: ask_to_cancel(s, n)),
}
"""By name: what prepares it, and the operation; all that changes something."""

LOOKING: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "read": (lambda s, n: enqueue(s, "send", n), lambda s, n, _: read_data(s, n)),
    "read much": (lambda s, n: enqueue(s, "send", n, data=BIG), lambda s, n, _: read_data(s, n)),
    "read an entry": (
        lambda s, n: enqueue(s, "send", n),
        lambda s, n, _: s.read_entry("send", n, lambda metadata, stat, data: data.read()),
    ),
    "count": (
        lambda s, n: enqueue(s, "send", n),
        lambda s, n, _: (s.count(), s.depths(), s.standings(), list(s.inventory())),
    ),
}
"""What changes nothing."""


REPEATABLE = ("give up", "annotate", "ask to cancel", "recover", "sweep")
"""What has the same effect when it is done again: that may have taken place though it was refused."""


class Bench(NamedTuple):
    """A store behind a proxy, and its tables."""

    proxy: Proxy
    tables: Tables
    storage: PostgresStorage


TAKEN_BACK = ("reserve", "check out", "release")
"""What begins like these is undone if nobody knows that it took place."""


@contextlib.contextmanager
def bench(patience: Patience, *, pooled: bool = False) -> Iterator[Bench]:
    """Open a store whose connections go through a proxy: all of them, or only those that a pooler might lend."""
    server = postgresql.server()
    with tables_in(server, "lost") as tables, proxy_before(server) as proxy:
        there = f"127.0.0.1:{proxy.port}"
        url = server.url(tables.schema, pool=there) if pooled else through(proxy, server).url(tables.schema)
        storage = PostgresStorage.open(url, QUEUES, create=True, patience=patience)
        try:
            yield Bench(proxy, tables, storage)
        finally:
            proxy.shut = False
            storage.close()


def proxy_before(server: postgresql.Server) -> Proxy:
    """Return a proxy before a server."""
    place = urllib.parse.urlsplit(server.base)
    assert place.hostname is not None
    return Proxy(place.hostname, place.port or 5432)


def through(proxy: Proxy, server: postgresql.Server) -> postgresql.Server:
    """Return a server as it is reached through a proxy."""
    place = urllib.parse.urlsplit(server.base)
    user = place.netloc.rpartition("@")[0]
    return postgresql.Server(place._replace(netloc=f"{user}@127.0.0.1:{proxy.port}").geturl(), server.origin)


class Case:
    """One operation, which is done again and again."""

    def __init__(self, on: Bench, operation: str) -> None:
        """Do it once without a fault, to see what the server is asked for, and what becomes of it."""
        self._bench = on
        self._operation = operation
        self._prepare, self._act = {**CHANGING, **LOOKING}[operation]
        prepared = self._prepared()
        self._before = self._found()
        on.proxy.count()
        made = self._act(on.storage, "a", prepared)
        self.requests = on.proxy.stop_counting()
        self._after = self._found()
        _let_go(made, prepared)
        del made, prepared
        until(self._nobody_has_anything, "nobody has anything any more")

    def lose(self, *points: Point, for_good: bool = False, may_be_unknown: bool = False) -> str:
        """Do it, and lose connections meanwhile, the last one `for_good`, until it is over; return what is wrong."""
        on, made, error = self._bench, None, None
        prepared = self._prepared()
        links, patience = on.storage._links, on.storage._links.patience
        if for_good:
            links.patience = dataclasses.replace(patience, answer=0.02)
        on.proxy.shuts_then = for_good
        on.proxy.count(*points)
        try:
            made = self._act(on.storage, "a", prepared)
        except SpoolError as raised:
            error = raised.with_traceback(None)
            error.__context__ = error.__cause__ = None
        finally:
            links.patience = patience
            on.proxy.shut = on.proxy.shuts_then = False
            on.proxy.stop_counting()
        fault = self._misreported(error, known=not (for_good or may_be_unknown)) or self._judge(error)
        _let_go(made, prepared)
        del made, prepared
        _ = gc.collect(0)
        if not _becomes_true(self._nobody_has_anything):
            fault = fault or f"somebody has it who does not know: {on.tables.held()}"
        if on.tables.stray_chunks():
            fault = fault or "parts of data are left"
        return fault

    def _prepared(self) -> Any:
        """Prepare it, and wait until what was let go of for it is let go of."""
        self._bench.tables.clear()
        prepared = self._prepare(self._bench.storage, "a")
        if not hasattr(prepared, "abandon"):
            held = self._bench.tables.held
            until(lambda: all(owner == 0 for _, owner in held()), "the keeper has done what it was told")
        return prepared

    def _found(self) -> list[Any]:
        return [row for row in self._bench.tables.entries() if row[0].startswith("a")]

    def _misreported(self, error: SpoolError | None, *, known: bool) -> str:
        if isinstance(error, DurabilityUnknown):
            if known:
                return "the server was there, and it is said not to be known"
            if self._operation.startswith(TAKEN_BACK):
                return "it is said not to be known, and is taken back"
            return "" if not error.committed and error.name.startswith("a") else f"it is misreported as {error!r}"
        return "" if error is None or isinstance(error, StoreUnreachable) else f"it is misreported as {error!r}"

    def _judge(self, error: SpoolError | None) -> str:
        """Compare what is there with what was answered."""
        if error is None:
            return "" if self._found() == self._after else f"it is said to be done, and there is {self._found()}"
        storage, either = self._bench.storage, [self._before]
        if isinstance(error, DurabilityUnknown) or self._operation in REPEATABLE:
            either.append(self._after)

        def fits() -> bool:
            if self._found() in either:
                return True
            _ = list(storage.recover_all())  # what was had unseen is let go of soon, and put back
            return self._found() in either

        return "" if _becomes_true(fits) else f"it is said not to be done, and there is {self._found()}"

    def _nobody_has_anything(self) -> bool:
        with contextlib.suppress(StoreUnreachable):  # an impatient store, on a busy machine
            for each in self._bench.storage.recover_all():
                assert not isinstance(each, SpoolError), each
            return not self._bench.tables.held()
        return False


def _let_go(made: Any, prepared: Any) -> None:
    """Let go of what an operation returned, and of what it was given."""
    for each in [*(made if isinstance(made, list) else [made]), prepared]:
        if hasattr(each, "abandon"):
            each.abandon()


def _becomes_true(condition: Callable[[], bool]) -> bool:
    try:
        until(condition, "it becomes true", SOON)
    except AssertionError:
        return False
    return True
