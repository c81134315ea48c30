"""A server whose disk is full: each answer says so, nothing is lost, and all goes on when there is room."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from helpers import mounts, postgresql
from helpers.children import Child
from helpers.figures import Proof

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.postgresql, pytest.mark.proof]


def fill(parent: Any, near: str) -> None:
    """Fill the tables, see what can be done all the same, make room, and go on."""
    import contextlib
    from pathlib import Path

    from helpers.finding import Reader
    from helpers.losing import BIG, Open, reserve_and_enqueue
    from helpers.schemas import until
    from helpers.small_servers import SmallServer, die, enqueue_together, work_off
    from helpers.stores import QUEUES, claim, enqueue, release, remove, save
    from trio_multispool.storage.postgres.store import PostgresStorage

    with SmallServer(Path(near)) as small, contextlib.closing(PostgresStorage.open(small.url, QUEUES)) as storage:
        tables, dead = small.tables, PostgresStorage.open(small.url, QUEUES)
        held = {}
        for name in ("one", "two", "three", "four"):
            enqueue(storage, "retry", name)
            held[name] = claim(storage, "retry", name)
        of_the_dead = [f"dead.{number:03}" for number in range(300)]
        enqueue_together(dead, of_the_dead, "failed")
        its = Reader(dead, "failed", door=Open()).ask(most=300).claims
        assert len(its) == 300
        there = small.fill(storage)
        assert tables.names("a") == there
        assert storage.count("send") == len(there)
        assert not small.has_room_for(lambda: reserve_and_enqueue(storage, "much", BIG))
        assert tables.stray_chunks() == 0
        # Somebody dies. There is no room to give back what it had, and yet the keeper that sees it keeps its session.
        keeper = storage._context.keeper
        control = keeper._control
        die(dead)
        until(lambda: small.has_refused(control.pid), "its keeper is told that there is no room")
        answered = keeper._answered
        until(lambda: keeper._answered is not answered, "it is answered once more")
        assert keeper._control is control, "it has lost its session, which keeps this process alive"
        # What is in hand can be settled, or is still in hand.
        acts = {
            "one": lambda: remove(storage, held["one"]),
            "two": lambda: release(storage, held["two"]),
            "three": lambda: save(storage, held["three"], "failed"),
            "four": lambda: remove(storage, held["four"]),
        }
        settled = {name for name, act in acts.items() if small.has_room_for(act)}
        assert settled >= {"one", "four"}
        assert {name for name, claimed in held.items() if not claimed.held} == settled
        taken: list[Any] = []
        small.has_room_for(lambda: taken.append(claim(storage, "send", min(there))))
        there -= {each.name for each in taken}
        # There is room again.
        small.make_room()
        reserve_and_enqueue(storage, "much", BIG)
        for claimed in (*held.values(), *taken):
            if claimed.held:
                remove(storage, claimed)

        def recovered() -> bool:
            _ = list(storage.recover_all())
            return not tables.held()

        until(recovered, "what the dead one had is back")
        assert tables.names("awcq") == there | {"much", *of_the_dead} | (settled & {"two", "three"})
        work_off(storage)
        assert storage.count() == sum(storage.depths().values()) == 0
        assert tables.stray_chunks() == 0
        parent.say(len(there) + len(of_the_dead), small.refused)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may mount a small disk for another user")
def test_a_full_disk_loses_nothing_and_all_goes_on_when_there_is_room(tmp_path: Path, count):
    """What is refused is not there, what was acknowledged is; who lives keeps what it has."""
    if reason := mounts.why_not():
        pytest.skip(reason)
    _ = postgresql.programs()  # or the reason why there are none
    with Child(fill, tmp_path) as child:
        entries, refused = child.hear()
        child.end()
    count(Proof.FULL_SERVER, entries_acknowledged=entries, operations_refused=refused, bad=0)
    assert refused > 4
