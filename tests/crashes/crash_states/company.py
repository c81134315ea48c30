"""What several processes do to one spool before the power fails: side by side, after a kill, and with other queues.

The second process does all that it does right before one call of the first: before each in turn.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from crash_states.cases import OPERATIONS
from crash_states.scene import QUEUES
from helpers.stores import NEW, NEW_DATA, available
from trio_multispool import NameTaken, NotASpool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crash_states.cases import Case, Stage
    from crash_states.scene import Process, Scene

OTHER = ("send", "other")
"""The queues of another program."""


def before_each_call(play: Callable[[int], tuple[Process, Scene]]) -> Iterator[Scene]:
    """Yield the scene for each number of a call, until there are no more calls to come before."""
    for n in itertools.count():
        process, scene = play(n)
        if process.calls.waiting:
            return
        yield scene


ACTS: dict[str, tuple[Callable[[Process, str], object], Callable[[Process, object], object]]] = {
    "enqueue": (lambda process, name: name, lambda process, name: process.enqueue(name)),
    "save": (
        lambda process, name: (process.enqueue(name), process.claim(name))[1],
        lambda process, claim: process.save(claim, "retry"),
    ),
    "remove": (
        lambda process, name: (process.enqueue(name), process.claim(name))[1],
        lambda process, claim: process.remove(claim),
    ),
}


def beside(first: str, second: str) -> Case:
    """Return the case of two processes that work on two entries."""

    def case(stage: Stage) -> Iterator[Scene]:
        def play(n: int) -> tuple[Process, Scene]:
            scene = stage()
            one, two = scene.one, scene.process()
            mine, yours = ACTS[first][0](one, "a"), ACTS[second][0](two, "b")
            scene.begin()
            one.calls.before(n, lambda: ACTS[second][1](two, yours))
            ACTS[first][1](one, mine)
            return one, scene

        yield from before_each_call(play)

    return case


def _taken_early(stage: Stage) -> Iterator[Scene]:
    """An entry is taken and saved by another as soon as it can be had, also before its enqueue has returned."""

    def play(n: int) -> tuple[Process, Scene]:
        scene = stage()
        two = scene.process()

        def take() -> None:
            claim = two.store.claim(available("send"), "n", before_commit=lambda: None)
            if hasattr(claim, "metadata"):
                two.save(claim, "retry")

        scene.one.calls.before(n, take)
        scene.one.enqueue("n")
        return scene.one, scene

    yield from before_each_call(play)


def _data_replaced_meanwhile(stage: Stage) -> Iterator[Scene]:
    """The data is replaced by somebody who does not own the entry, while its owner saves it."""

    def play(n: int) -> tuple[Process, Scene]:
        scene = stage()
        one, two = scene.one, scene.process()
        one.enqueue("n")
        claim = one.claim("n")
        scene.begin()
        one.calls.before(n, lambda: two.replace_data("n", None))
        one.save(claim, "retry", None)
        return one, scene

    yield from before_each_call(play)


def killed(operation: str) -> Case:
    """Return the case of an operation that is killed at each call, and recovered by another before the power fails."""
    prepare, act = OPERATIONS[operation]

    def case(stage: Stage) -> Iterator[Scene]:
        for n in itertools.count():
            scene = stage()
            prepared = prepare(scene.one)
            scene.begin()
            if not scene.one.killed_at(n, lambda scene=scene, prepared=prepared: act(scene.one, prepared)):
                return
            scene.process().recover()
            yield scene

    return case


def _enqueued_again(operation: str) -> Case:
    """Return the case of an enqueue or a removal that is killed, after which the name is used by another.

    If it answers that the name is taken, the entry that has it is acknowledged with that.
    """
    prepare, act = OPERATIONS[operation]

    def case(stage: Stage) -> Iterator[Scene]:
        for n in itertools.count():
            scene = stage()
            prepared = prepare(scene.one)
            was = scene.known("n").now
            scene.begin()
            if not scene.one.killed_at(n, lambda scene=scene, prepared=prepared: act(scene.one, prepared)):
                return
            made = scene.known("n").now if was is None else was
            try:
                scene.process().enqueue("n", "retry", NEW, NEW_DATA)
            except NameTaken:
                scene.acknowledge("n", made)
            yield scene

    return case


def creating(stage: Stage) -> Iterator[Scene]:
    """A spool is created, and used."""
    scene = stage(made=False)
    scene.create().enqueue("n")
    yield scene


def _two_creators(stage: Stage) -> Iterator[Scene]:
    """Two create one spool at the same time, and the one that is ready first uses it."""

    def play(n: int) -> tuple[Process, Scene]:
        from crash_states.recording import RecordingCalls

        scene = stage(made=False)
        calls = RecordingCalls(scene.recording)
        calls.before(n, lambda: scene.create().enqueue("n"))
        return scene.create(calls=calls), scene

    yield from before_each_call(play)


def _other_queues(stage: Stage) -> Iterator[Scene]:
    """A program adds a queue that the other does not know, and saves an entry of the other's to it; and back."""
    for queues in (QUEUES, OTHER):
        scene = stage(queues=queues)
        scene.one.enqueue("n")
        two = scene.create(OTHER)
        two.save(two.claim("n"), "other")
        two.enqueue("m", "other")
        scene.one.recover()
        two.save(two.claim("n", "other"), "send")
        two.remove(two.claim("m", "other"))
        yield scene


def _queue_in_the_making(stage: Stage) -> Iterator[Scene]:
    """A queue is used by a program that finds it made, while the one that makes it has not come to its syncs."""

    def play(n: int) -> tuple[Process, Scene]:
        from crash_states.recording import RecordingCalls

        scene = stage()
        calls = RecordingCalls(scene.recording)

        def use() -> None:
            try:
                scene.load(OTHER).enqueue("n", "other")
            except NotASpool:
                return

        calls.before(n, use)
        return scene.create(OTHER, calls), scene

    yield from before_each_call(play)


CASES: dict[str, Case] = {
    "two processes: enqueue, enqueue": beside("enqueue", "enqueue"),
    "two processes: save, remove": beside("save", "remove"),
    "taken before its enqueue has returned": _taken_early,
    "data replaced while it is saved": _data_replaced_meanwhile,
    **{
        f"{name}, killed and recovered": killed(name) for name in ("enqueue", "save changed", "remove", "direct remove")
    },
    "enqueue, killed, enqueued again": _enqueued_again("enqueue"),
    "remove, killed, enqueued again": _enqueued_again("remove"),
    "creating a spool": creating,
    "another queue": _other_queues,
    "a queue in the making": _queue_in_the_making,
}
"""Few enough to be gone through always."""

MORE: dict[str, Case] = {
    **{
        f"two processes: {one}, {two}": beside(one, two)
        for one, two in itertools.product(ACTS, repeat=2)
        if f"two processes: {one}, {two}" not in CASES
    },
    **{
        f"{name}, killed and recovered": killed(name)
        for name in OPERATIONS
        if f"{name}, killed and recovered" not in CASES
    },
    "two creators": _two_creators,
}
"""The rest."""
