"""Slots, which limits on keys are made of: each is one holder's at a time, and none is lost."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from helpers import postgresql
from helpers.finding import Aside
from helpers.losing import bench
from helpers.schemas import until
from helpers.stores import QUEUES
from trio_multispool import StoreUnreachable
from trio_multispool.storage.postgres.patience import PATIENT, Patience
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.losing import Bench

pytestmark = pytest.mark.postgresql


@pytest.fixture
def on(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Open a store that reaches its server through a proxy, with the patience that the test wants."""
    with bench(getattr(request, "param", PATIENT)) as made:
        yield made


@pytest.fixture
def other(on: Bench) -> Iterator[PostgresStorage]:
    """Open the same spool once more, on a way of its own."""
    other = PostgresStorage.open(postgresql.server().url(on.tables.schema), QUEUES)
    yield other
    other.close()


impatient = pytest.mark.parametrize("on", [Patience(answer=0.2)], indirect=True, ids=["impatient"])


def keeper_of(store: Any) -> Any:
    """Return a store's keeper, to see what it has begun, and whether it has connected again."""
    return store._context.keeper


def test_of_several_threads_that_ask_for_one_slot_at_the_same_time_one_gets_it(on):
    """Though one session may take a lock of the server's twice."""
    on.proxy.frozen = True
    asking = [Aside(lambda: on.storage.slot(range(1)))]
    until(lambda: not keeper_of(on.storage).slots.waiting, "the keeper has asked")
    asking += [Aside(lambda: on.storage.slot(range(1))) for _ in range(2)]
    until(lambda: keeper_of(on.storage).slots.waiting, "the others wait for it")
    on.proxy.frozen = False
    assert [each.result() is None for each in asking].count(False) == 1


@impatient
def test_a_slot_that_nobody_waits_for_any_more_is_not_kept(on, other):
    """Neither the one that the server was asked for, nor the one that it was not."""
    on.proxy.frozen = True
    asking = [Aside(lambda number=number: on.storage.slot(range(number, number + 1))) for number in range(2)]
    for each in asking:
        with pytest.raises(StoreUnreachable):
            each.result()
    on.proxy.frozen = False
    on.storage._links.patience = PATIENT
    last = on.storage.slot(range(2, 3))  # asked for after those, so that they are done with
    assert last is not None
    got = [until(lambda number=number: other.slot(range(number, number + 1)), "it is free") for number in range(2)]
    for each in [last, *got]:
        each.release()


@impatient
def test_nobody_waits_for_a_server_that_is_silent(on):
    """Whoever asks for a slot is told; to free one, and to close the spool, are done in event loops."""
    slot = on.storage.slot(range(1))
    on.proxy.frozen = True
    asking = Aside(lambda: on.storage.slot(range(1, 2)))
    Aside(slot.release).result()
    with pytest.raises(StoreUnreachable):
        asking.result()
    Aside(on.storage.close).result()
    on.proxy.frozen = False


def test_a_slot_is_held_while_the_sessions_of_operations_idle_and_are_ended(on, other):
    """A server, or a role, may end those that have had nothing to do for some time."""
    url = postgresql.server().url(on.tables.schema, options="-cidle_session_timeout=1000")
    with contextlib.closing(PostgresStorage.open(url, QUEUES, patience=Patience(every=0.05))) as store:
        slot, session = store.slot(range(1)), keeper_of(store)._control.pid
        assert store.names("send") == []
        assert len(on.tables.sessions(store._links.owner)) > 1
        until(lambda: len(on.tables.sessions(store._links.owner)) == 1, "the other sessions are ended")
        assert keeper_of(store)._control.pid == session
        assert other.slot(range(1)) is None
        slot.release()
        until(lambda: other.slot(range(1)), "it is free")
