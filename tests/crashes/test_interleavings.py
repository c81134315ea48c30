"""Several owners of one or two entries, who go on call by call in any order, and die anywhere: what stands then."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from helpers.children import quick_directory
from helpers.figures import Proof
from helpers.interleaving import Owners, like_processes
from helpers.proofs import WHOLE, every
from helpers.worlds import BEGINNINGS, DEEDS, QUEUES, Deed, World, program_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.proof

DEED = st.builds(
    Deed,
    kind=st.sampled_from([*DEEDS, "enqueue", "work", "work", "sweep"]),
    name=st.sampled_from(["one"] * 7 + ["two"]),
    queue=st.sampled_from(QUEUES),
    how=st.sampled_from(["save", "move", "remove", "release"]),
    target=st.sampled_from(QUEUES),
)
PROGRAMS = st.lists(st.lists(DEED, min_size=1, max_size=3), min_size=2, max_size=3)


@dataclasses.dataclass(frozen=True)
class Turns:
    """Who goes on, how far, and whether he dies there."""

    owner: int
    number: int
    counts: str
    dies: bool


SCHEDULE = st.lists(
    st.builds(
        Turns,
        owner=st.integers(0, 2),
        number=st.integers(1, 8),
        counts=st.sampled_from(["change", "change", "call", "rest"]),
        dies=st.sampled_from([False] * 4 + [True]),
    ),
    min_size=2,
    max_size=10,
)
"""Afterwards all that live go on to their ends."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Iterator[Path]:
    """Say where the spools are to be."""
    with quick_directory(tmp_path_factory.mktemp("spools")) as quick, like_processes():
        yield quick


def play(world: World, programs: list[list[Deed]], schedule: list[Turns]) -> list[str]:
    """Let owners do their deeds in the order that the schedule says; return what they did."""
    with Owners(world.path, [program_of(world, deeds) for deeds in programs]) as owners:
        for goes_on in schedule:
            owners.run(goes_on.owner, goes_on.number, goes_on.counts)
            if goes_on.dies:
                owners.kill(goes_on.owner)
        for number in range(len(programs)):
            owners.run(number)
    return owners.trace


@contextlib.contextmanager
def world_in(directory: Path) -> Iterator[World]:
    """Make a spool, and clear it away."""
    path = directory / "spool"
    world = World(path)
    try:
        yield world
    finally:
        world.storage.close()
        shutil.rmtree(path)


def insist(world: World, trace: list[str], *, tell: Callable[[str], None] = print) -> None:
    """Judge; if there is a fault, tell what was done, and what was written down."""
    faults = world.judge()
    for line in [*trace, *map(str, world.ledger)] if faults else ():
        tell(line)
    assert faults == []


def deed(kind: str, how: str = "save", target: str = "retry") -> Deed:
    """Return a deed done to entry `one`."""
    return Deed(kind, "one", "send", how, target)


ALONE = {
    "enqueue": ("nothing", deed("enqueue")),
    "enqueue again": ("half made", deed("enqueue")),
    "enqueue in vain": ("available", deed("enqueue")),
    "save": ("available", deed("work")),
    "save in place": ("available", deed("work", target="send")),
    "move": ("available", deed("work", "move")),
    "remove": ("available", deed("work", "remove")),
    "release": ("available", deed("work", "release")),
    "data save": ("available", deed("rewrite", "release")),
    "recover": ("of the dead", deed("recover")),
    "sweep": ("half made", deed("sweep")),
}
"""What one owner does, and what it finds."""

OTHERS = {
    "recovers": [deed("recover"), deed("sweep")],
    "removes, enqueues, and saves": [deed("work", "remove"), deed("enqueue"), deed("work")],
    "removes, enqueues, and recovers": [deed("work", "remove"), deed("enqueue"), deed("recover")],
    "rewrites": [deed("enqueue"), deed("rewrite", "save", "send")],
}
"""What another does meanwhile."""


def overtake(world: World, mine: Deed, others: list[Deed], calls: int, how: str) -> tuple[list[str], bool]:
    """Let one owner come as far as before a call, and then another overtake it; tell whether it came to its end."""
    with Owners(world.path, [program_of(world, [mine]), program_of(world, others)]) as owners:
        # A dead owner leaves the same whether or not it had looked at something since its last change.
        owners.run(0, calls, "change" if how == "killed" else "call")
        ended = owners.owners[0].ended
        if how == "killed":
            owners.kill(0)
        if how == "both at work":
            owners.run(1, 1, "rest")
            owners.run(0)
        if how == "in turns":
            owners.run(1, 3, "rest")
            owners.run(0, 1, "rest")
        owners.run(1)
        owners.run(0)
    return owners.trace, ended


@pytest.mark.parametrize("how", ["overtaken", "both at work", "in turns", "killed"])
@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("mine", ALONE)
def test_an_owner_may_be_overtaken_or_killed_before_any_of_its_calls(directory, mine, others, how, count):
    """Whatever another owner does between two calls of one that goes on, or that is dead, all is well in the end."""
    beginning, what = ALONE[mine]
    for calls in itertools.count(1, every(6)):
        with world_in(directory) as world:
            BEGINNINGS[beginning](world, "one")
            trace, ended = overtake(world, what, OTHERS[others], calls, how)
            insist(world, trace)
        count(Proof.INTERLEAVINGS, schedules=1)
        if ended:
            return


def entangle(world: World, mine: Deed, changes: int, others_changes: int) -> tuple[list[str], bool, bool]:
    """Let one owner stop before a change, and then another; let the first end before the other. Tell who had ended."""
    with Owners(world.path, [program_of(world, [mine]), program_of(world, [deed("work", target="send")])]) as owners:
        owners.run(0, changes, "change")
        owners.run(1, others_changes, "change")
        ended, others_ended = (owner.ended for owner in owners.owners)
        owners.run(0)
        owners.run(1)
    return owners.trace, ended, others_ended


@pytest.mark.parametrize("mine", ALONE)
def test_two_owners_may_both_be_stopped_before_any_of_their_changes(directory, mine, count):
    """Wherever one stands while another does half its work, neither spoils what the other is at."""
    beginning, what = ALONE[mine]
    for changes in itertools.count(1, every(3)):
        for others_changes in itertools.count(1, every(3)):
            with world_in(directory) as world:
                BEGINNINGS[beginning](world, "one")
                trace, ended, others_ended = entangle(world, what, changes, others_changes)
                insist(world, trace)
            count(Proof.INTERLEAVINGS, schedules=1)
            if others_ended:
                break
        if ended:
            return


@settings(
    max_examples=1200 if WHOLE else 150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    one=st.sampled_from([*BEGINNINGS, "available", "available"]),
    two=st.sampled_from([*BEGINNINGS]),
    programs=PROGRAMS,
    schedule=SCHEDULE,
)
def test_whatever_the_order_of_their_calls_and_whoever_dies_owners_lose_and_double_nothing(  # noqa: PLR0913, PLR0917
    directory, count, one, two, programs, schedule
):
    """After recovery each entry is whole, in one place and as it was acknowledged; nobody had it beside another."""
    with world_in(directory) as world:
        for name, beginning in (("one", one), ("two", two)):
            BEGINNINGS[beginning](world, name)
        insist(world, play(world, programs, schedule), tell=note)
    count(Proof.INTERLEAVINGS, schedules=1)
