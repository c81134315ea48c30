"""What is done to a spool before the power fails: each operation alone, in sequences, in batches, and side by side.

A case returns the scenes that it played, each recorded. `CASES` are small enough to be enumerated whole.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeAlias

from crash_states.scene import Scene
from helpers.stores import NEW, nothing
from trio_multispool import Durability
from trio_multispool.storage.protocol import Releasing, Removing, Saving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crash_states.scene import Process
    from trio_multispool.storage.protocol import Claim

Stage: TypeAlias = "Callable[..., Scene]"
"""Makes a new scene, in a directory of its own."""

Case: TypeAlias = "Callable[[Stage], Iterator[Scene]]"

POWER, PROCESS = Durability.POWER, Durability.PROCESS


def _entry(one: Process) -> None:
    one.enqueue("n")


def _claim(one: Process) -> Claim:
    one.enqueue("n")
    return one.claim("n")


def _returned(one: Process) -> None:
    one.release(_claim(one))


def _dead_owner(one: Process) -> None:
    _claim(one).abandon()


OPERATIONS: dict[str, tuple[Callable[[Process], object], Callable[[Process, object], object]]] = {
    "reserve": (lambda one: None, lambda one, _: one.store.reserve("n")),
    "give up": (lambda one: one.store.reserve("n"), lambda one, held: one.store.give_up(held)),
    "enqueue": (lambda one: None, lambda one, _: one.enqueue("n")),
    "check out": (_entry, lambda one, _: one.claim("n")),
    "save changed": (_claim, lambda one, claim: one.save(claim, "retry")),
    "save unchanged": (_claim, lambda one, claim: one.save(claim, "retry", None)),
    "save in place": (_claim, lambda one, claim: one.save(claim, "send")),
    "save in place unchanged": (_claim, lambda one, claim: one.save(claim, "send", None)),
    "release": (_claim, lambda one, claim: one.release(claim)),
    "remove": (_claim, lambda one, claim: one.remove(claim)),
    "quarantine": (_claim, lambda one, claim: one.quarantine(claim)),
    "data save": (_claim, lambda one, claim: one.replace_data("n", claim)),
    "direct save": (_returned, lambda one, _: one.replace_metadata("n")),
    "direct remove": (_returned, lambda one, _: one.delete("n")),
    "direct data save": (_returned, lambda one, _: one.replace_data("n", None)),
    "recover": (_dead_owner, lambda one, _: one.recover()),
    "sweep": (lambda one: one.store.reserve("n").abandon(), lambda one, _: one.recover()),
}
"""By name: what prepares (on the disk, and not all of it safe), and the operation, given what was prepared."""


def _single(prepare: Callable[[Process], object], act: Callable[[Process, object], object]) -> Case:
    def case(stage: Stage) -> Iterator[Scene]:
        scene = stage()
        prepared = prepare(scene.one)
        scene.begin()
        act(scene.one, prepared)
        yield scene

    return case


def life(stage: Stage) -> Iterator[Scene]:
    """Enqueue, check out, save, check out, give new data, remove; and use the name again."""
    scene = stage()
    one = scene.one
    one.enqueue("n")
    one.save(one.claim("n"), "retry")
    claim = one.claim("n", "retry")
    one.replace_data("n", claim)
    one.remove(claim)
    one.enqueue("n", "retry", NEW)
    yield scene


def round_and_round(stage: Stage) -> Iterator[Scene]:
    """Check out and return, save to another queue and back, unchanged, in place."""
    scene = stage()
    one = scene.one
    one.enqueue("n")
    one.release(one.claim("n"))
    one.save(one.claim("n"), "retry", None)
    one.save(one.claim("n", "retry"), "send")
    one.save(one.claim("n"), "send", None)
    yield scene


def _levels(level: Durability) -> Case:
    def case(stage: Stage) -> Iterator[Scene]:
        for first, second, third in itertools.product((POWER, PROCESS), repeat=3):
            scene = stage(level=level)
            one = scene.one
            one.enqueue("n", level=first)
            one.save(one.claim("n"), "retry", level=second)
            claim = one.claim("n", "retry")
            one.replace_data("n", claim, level=third)
            one.remove(claim, level=first)
            yield scene
            scene = stage(level=level)
            one = scene.one
            one.enqueue("n", level=first)
            one.replace_metadata("n", level=second)
            one.replace_data("n", None, level=third)
            one.save(one.claim("n"), "send", None, level=second)
            one.delete("n", level=first)
            yield scene

    return case


def settled_together(stage: Stage) -> Iterator[Scene]:
    """Three that are saved, removed and returned by one call; three saved; three removed."""
    batches: list[Callable[[list[Claim]], list[object]]] = [
        lambda claims: [Saving(claims[0], "retry", NEW, None, nothing), Removing(claims[1], None, nothing), Releasing(claims[2])],
        lambda claims: [Saving(claim, "retry", NEW, None, nothing) for claim in claims],
        lambda claims: [Saving(claims[0], "retry", None, None, nothing), Saving(claims[1], "send", NEW, PROCESS, nothing)],
        lambda claims: [Removing(claim, None, nothing) for claim in claims],
    ]
    for batch in batches:
        scene = stage()
        for name in "abc":
            scene.one.enqueue(name)
        scene = stage(scene)
        claims = [scene.one.claim(name) for name in "abc"]
        scene.begin()
        scene.one.settle(*batch(claims))
        yield scene


CASES: dict[str, Case] = {name: _single(*operation) for name, operation in OPERATIONS.items()} | {
    "a whole life": life,
    "round and round": round_and_round,
    "levels mixed, POWER spool": _levels(POWER),
    "levels mixed, PROCESS spool": _levels(PROCESS),
    "settled together": settled_together,
}
