"""Connections that are lost at every request of every operation, in every way: nothing is lost, doubled or misreported.

A proxy stands between the store and the server, and loses the connection at the n-th request. The store must find out
by itself whether its change took place. So each operation succeeds, once; or it is refused, and nothing has changed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from helpers.figures import Proof
from helpers.losing import CHANGING, LOOKING, QUIET, Bench, Case, bench
from helpers.proofs import thinned
from helpers.proxies import Loss, Point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.postgresql, pytest.mark.proof]


@pytest.fixture(scope="module", params=[False, True], ids=["direct", "pooled"])
def either(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Open a store whose connections can be lost, one for all operations."""
    with bench(QUIET, pooled=request.param) as made:
        yield made


@pytest.fixture(scope="module")
def direct() -> Iterator[Bench]:
    """Open one that has no pooler."""
    with bench(QUIET) as made:
        yield made


@pytest.fixture(scope="module")
def kept() -> Iterator[Bench]:
    """Open one whose keeper looks often what there is to do."""
    with bench(dataclasses.replace(QUIET, every=0.05)) as made:
        yield made


def ways_of(sql: str) -> list[Loss]:
    """Return how a connection may be lost at a request: what holds the lock on its row cannot be overdue."""
    in_transaction = sql.startswith(("BEGIN", "COMMIT")) or " AS link" not in sql
    never = (Loss.SILENCE, Loss.OVERDUE) if in_transaction else (Loss.SILENCE,)
    return [each for each in Loss if each not in never]


def lose_at_each(
    case: Case, points: list[tuple[Point, ...]], on: Bench, count: Callable[..., None], *, for_good: bool = False
) -> None:
    """Do it with each loss; whatever was wrong is told at the end."""
    before, faults = on.proxy.lost, {}
    for each in points:
        if fault := case.lose(*each, for_good=for_good):
            faults[each] = fault
    lost = on.proxy.lost - before
    count(Proof.LOST_CONNECTIONS, operations=1, connections_lost=lost, bad=len(faults))
    assert not faults, "\n".join(f"{', then '.join(map(told, each))}: {fault}" for each, fault in faults.items())
    assert lost > 0


def told(point: Point) -> str:
    """Say when a connection was lost, and how."""
    return f"{point.loss.value}, at request {point.number}"


@pytest.mark.parametrize("operation", [*CHANGING, *LOOKING])
def test_whenever_a_connection_is_lost_the_answer_is_right_and_the_change_was_made_once_or_not(
    either, operation, count
):
    """At each request, in each way: what is acknowledged is there, once, and what is refused is not."""
    case = Case(either, operation)
    points = [Point(n, loss) for n, sql in enumerate(case.requests, 1) for loss in ways_of(sql)]
    lose_at_each(case, [(each,) for each in thinned(points, 5, kind=lambda point: point.loss)], either, count)


@pytest.mark.parametrize("operation", CHANGING)
def test_a_connection_that_is_lost_again_while_it_is_found_out_what_became_of_the_change(direct, operation, count):
    """At each request of the store's own, by which it finds out; nothing is different from one loss."""
    case = Case(direct, operation)
    losses = [(Loss.ANSWER, Loss.BEFORE), (Loss.ANSWER, Loss.ANSWER), (Loss.BEFORE, Loss.ANSWER)]
    pairs = [
        (Point(n, first), Point(n + later, second))
        for n in range(1, len(case.requests) + 1)
        for later in (2, 3, 4)  # to take the owner's lock, to begin an epoch, and to go on
        for first, second in losses
    ]
    lose_at_each(case, thinned(pairs, 5), direct, count)
