"""Changes whose outcome a server does not tell in time, and connections on which no answer comes at all."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from helpers.finding import Aside
from helpers.losing import CHANGING, QUIET, bench, first_of_two, settle_and_take
from helpers.proxies import Loss, Point
from helpers.schemas import until
from helpers.stores import DATA, OLD, claim, enqueue, nothing
from trio_multispool import DurabilityUnknown, StoreUnreachable
from trio_multispool.storage.requests import NewEntry, Removing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.losing import Bench

pytestmark = pytest.mark.postgresql


@pytest.fixture
def on() -> Iterator[Bench]:
    """Open a store that gives up soon, and whose keeper asks often."""
    with bench(dataclasses.replace(QUIET, answer=0.2, every=0.05)) as made:
        yield made


def lose_for_a_while(on: Bench, act: Callable[[], Any]) -> Any:
    """Do something of which the first answer is lost, while the server stays away for too long."""
    on.proxy.shuts_then = True
    on.proxy.count(Point(1, Loss.ANSWER))
    try:
        return act()
    finally:
        on.proxy.stop_counting()
        on.proxy.shuts_then = on.proxy.shut = False


TAKING = ["reserve", "check out", "check out what waited", "check out the first", "settle and check out"]


@pytest.mark.parametrize("operation", TAKING)
def test_what_a_process_has_without_knowing_it_comes_back(on, operation):
    """It lives on, so that nobody takes its entries for those of a dead process; it lets go of them itself.

    So what it is told is only that the server is away, and no more can be in doubt; but for what was settled with it.
    """
    prepare, act = CHANGING[operation]
    prepared = prepare(on.storage, "a")
    with pytest.raises(DurabilityUnknown if operation.startswith("settle") else StoreUnreachable):
        lose_for_a_while(on, lambda: act(on.storage, "a", prepared))

    def nobody_has_anything() -> bool:
        _ = list(on.storage.recover_all())
        return not on.tables.held()

    until(nobody_has_anything, "it was let go of")


def test_each_of_several_is_told_what_is_not_known_of_it(on):
    """One commit was made for all of them, and its answer is about all."""
    names = ["a", "b", "c"]
    wanted = [NewEntry(on.storage.reserve(each, unique=True), "send", OLD, DATA, None, nothing) for each in names]
    on.storage.names("send")  # it is connected
    failures = lose_for_a_while(on, lambda: on.storage.enqueue_together(wanted))
    assert [(type(each), each.queue, each.name) for each in failures] == [
        (DurabilityUnknown, "send", name) for name in names
    ]
    claims = [claim(on.storage, "send", name) for name in sorted(on.tables.names())]
    failures = lose_for_a_while(on, lambda: on.storage.settle([Removing(each, None, nothing) for each in claims]))
    assert [each.name for each in failures] == names
    assert on.tables.names() == set()


ASKING: dict[str, Callable[[Any, Any], Any]] = {
    "look": lambda store, _: store.names("send"),
    "change": lambda store, _: enqueue(store, "send", "c"),
    "settle": lambda store, first: settle_and_take(store, "a", first),
}


@pytest.mark.parametrize("ask", ASKING)
def test_an_operation_does_not_wait_for_ever_on_a_connection_that_is_silent(on, ask):
    """What stands between may keep it open with nobody at its other end, and serve those that are made anew."""
    first = first_of_two(on.storage, "a")
    before = on.tables.entries()
    on.proxy.count(Point(1, Loss.SILENCE))
    with pytest.raises(StoreUnreachable):
        Aside(lambda: ASKING[ask](on.storage, first)).result()
    on.proxy.stop_counting()
    assert on.tables.entries() == before
    ASKING[ask](on.storage, first)
