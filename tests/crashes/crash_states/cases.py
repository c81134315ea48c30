"""What is done to a spool before the power fails: each operation alone, in sequences, in batches, and side by side.

A case returns the scenes that it played, each recorded. `CASES` are small enough to be enumerated whole.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeAlias

from helpers.stores import DUE, NEW, nothing
from trio_multispool import Durability
from trio_multispool.storage.directory.syncs.whole import TRUSTED
from trio_multispool.storage.requests import Releasing, Removing, Saving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crash_states.scene import Process, Scene
    from trio_multispool.storage.handles import Claim
from trio_multispool.storage.requests import Settlement

Stage: TypeAlias = "Callable[..., Scene]"
"""Makes a new scene, in a directory of its own."""

Case: TypeAlias = "Callable[[Stage], Iterator[Scene]]"

POWER, PROCESS = Durability.POWER, Durability.PROCESS


def _entry(one: Process) -> None:
    one.enqueue("n")


def _claim(one: Process) -> Claim:
    one.enqueue("n")
    return one.claim("n")


def _waiting(one: Process) -> None:
    one.enqueue_to_wait("n")


def _due(one: Process) -> Claim:
    one.enqueue_to_wait("n")
    return one.claim_waiting("n")


def _noted(one: Process) -> Claim:
    claim = _claim(one)
    one.store.annotate(claim, "key", b"2")
    return claim


def _to_be_remembered(one: Process) -> Claim:
    one.enqueue_to_be_remembered("n")
    return one.claim("n")


def _returned(one: Process) -> None:
    one.release(_claim(one))


def _dead_owner(one: Process) -> None:
    _claim(one).abandon()


OPERATIONS: dict[str, tuple[Callable[[Process], object], Callable[[Process, object], object]]] = {
    "reserve": (lambda one: None, lambda one, _: one.store.reserve("n")),
    "give up": (lambda one: one.store.reserve("n"), lambda one, held: one.store.give_up(held)),
    "enqueue": (lambda one: None, lambda one, _: one.enqueue("n")),
    "enqueue to wait": (lambda one: None, lambda one, _: one.enqueue_to_wait("n")),
    "check out what waited": (_waiting, lambda one, _: one.claim_waiting("n")),
    "check out": (_entry, lambda one, _: one.claim("n")),
    "save changed": (_claim, lambda one, claim: one.save(claim, "retry")),
    "save unchanged": (_claim, lambda one, claim: one.save(claim, "retry", None)),
    "save in place": (_claim, lambda one, claim: one.save(claim, "send")),
    "save in place unchanged": (_claim, lambda one, claim: one.save(claim, "send", None)),
    "save to wait": (_claim, lambda one, claim: one.save_to_wait(claim, "retry")),
    "save to wait unchanged": (_claim, lambda one, claim: one.save_to_wait(claim, "send", None)),
    "save with notes": (_claim, lambda one, claim: one.save_with_notes(claim, "retry")),
    "save to wait with notes": (_claim, lambda one, claim: one.save_with_notes(claim, "send", DUE)),
    "save with other notes": (_noted, lambda one, claim: one.save_with_notes(claim, "send")),
    "save what waited": (_due, lambda one, claim: one.save(claim, "retry")),
    "save what waited to wait again": (_due, lambda one, claim: one.save_to_wait(claim, "send")),
    "release what waited": (_due, lambda one, claim: one.release(claim)),
    "remove what waited": (_due, lambda one, claim: one.remove(claim)),
    "release": (_claim, lambda one, claim: one.release(claim)),
    "remove": (_claim, lambda one, claim: one.remove(claim)),
    "enqueue to be remembered": (lambda one: None, lambda one, _: one.enqueue_to_be_remembered("n")),
    "remove and remember": (_to_be_remembered, lambda one, claim: one.remove(claim)),
    "direct remove and remember": (
        lambda one: one.enqueue_to_be_remembered("n"),
        lambda one, _: one.delete("n"),
    ),
    "quarantine": (_claim, lambda one, claim: one.quarantine(claim)),
    "data save": (_claim, lambda one, claim: one.replace_data("n", claim)),
    "direct save": (_returned, lambda one, _: one.replace_metadata("n")),
    "direct remove": (_returned, lambda one, _: one.delete("n")),
    "direct data save": (_returned, lambda one, _: one.replace_data("n", None)),
    "recover": (_dead_owner, lambda one, _: one.recover()),
    "recover what waited": (lambda one: _due(one).abandon(), lambda one, _: one.recover()),
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


def life_with_waits(stage: Stage) -> Iterator[Scene]:
    """Enqueue to wait, check out, save to wait elsewhere, check out, remove; and use the name again."""
    scene = stage()
    one = scene.one
    one.enqueue_to_wait("n")
    one.save_to_wait(one.claim_waiting("n"), "retry")
    one.remove(one.claim_waiting("n", "retry"))
    one.enqueue("n")
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


def levels_mixed(stage: Stage) -> Iterator[Scene]:
    """Every mixture of levels in the calls of one entry's life, in a spool of level `POWER`."""
    for first, second, third in itertools.product((POWER, PROCESS), repeat=3):
        scene = stage()
        one = scene.one
        one.enqueue("n", level=first)
        one.save(one.claim("n"), "retry", level=second)
        claim = one.claim("n", "retry")
        one.replace_data("n", claim, level=third)
        one.remove(claim, level=first)
        yield scene


def levels_mixed_directly(stage: Stage) -> Iterator[Scene]:
    """The same with direct operations."""
    for first, second, third in itertools.product((POWER, PROCESS), repeat=3):
        scene = stage()
        one = scene.one
        one.enqueue("n", level=first)
        one.replace_metadata("n", level=second)
        one.replace_data("n", None, level=third)
        one.save(one.claim("n"), "send", None, level=second)
        one.delete("n", level=first)
        yield scene


LAST: dict[str, Callable[[Process, str], None]] = {
    "save": lambda one, queue: one.save(one.claim("n", queue), "retry", level=POWER),
    "save unchanged": lambda one, queue: one.save(one.claim("n", queue), "retry", None, level=POWER),
    "remove": lambda one, queue: one.remove(one.claim("n", queue), level=POWER),
    "data save": lambda one, queue: one.replace_data("n", one.claim("n", queue), level=POWER),
    "direct save": lambda one, queue: one.replace_metadata("n", level=POWER),
    "direct remove": lambda one, queue: one.delete("n", level=POWER),
}
"""Calls of level `POWER` on an entry in some queue."""


def _raised(last: Callable[[Process, str], None], *, moved: bool) -> Case:
    """Return the case of a call of level `POWER` in a spool of level `PROCESS`, on an entry that is not safe."""

    def case(stage: Stage) -> Iterator[Scene]:
        scene = stage(level=PROCESS)
        one = scene.one
        if moved:
            one.enqueue("n", level=POWER)
            one.save(one.claim("n"), "retry", NEW)
        else:
            one.enqueue("n")
        scene.begin()
        last(one, "retry" if moved else "send")
        yield scene

    return case


def _saving(claim: Claim, queue: str, metadata: bytes | None = NEW, level: Durability | None = None) -> Saving[Claim]:
    return Saving(claim, queue, metadata, level, nothing)


def _removing(claim: Claim) -> Removing[Claim]:
    return Removing(claim, None, nothing)


BATCHES: dict[str, Callable[..., list[Settlement[Claim]]]] = {
    "two saved": lambda a, b: [_saving(a, "retry"), _saving(b, "retry")],
    "two removed": lambda a, b: [_removing(a), _removing(b)],
    "saved elsewhere and in place": lambda a, b: [_saving(a, "retry", None), _saving(b, "send")],
    "saved, removed, returned": lambda a, b, c: [_saving(a, "retry"), _removing(b), Releasing(c)],
    "three saved: to a queue, with less, and in place": lambda a, b, c: [
        _saving(a, "retry"),
        _saving(b, "retry", NEW, PROCESS),
        _saving(c, "send"),
    ],
}


def _together(batch: Callable[..., list[Settlement[Claim]]]) -> Case:
    """Return the case of entries that are settled by one call."""
    names = "abc"[: batch.__code__.co_argcount]

    def case(stage: Stage) -> Iterator[Scene]:
        scene = stage()
        for name in names:
            scene.one.enqueue(name)
        scene = stage(scene)
        claims = [scene.one.claim(name) for name in names]
        scene.begin()
        scene.one.settle(*batch(*claims))
        yield scene

    return case


def enqueued_together(stage: Stage) -> Iterator[Scene]:
    """Two to one queue."""
    scene = stage()
    scene.one.enqueue_together(("a", "send", None), ("b", "send", None))
    yield scene


def enqueued_with_less(stage: Stage) -> Iterator[Scene]:
    """Two to two queues, one of them with less."""
    scene = stage()
    scene.one.enqueue_together(("a", "send", None), ("b", "retry", PROCESS))
    yield scene


def _learned(scene: Scene) -> Process:
    """Return a process that has learned what syncs cost, on a file system where it may sync all of it at once."""
    one = scene.process(file_system=min(TRUSTED))
    one.enqueue("w")
    scene.make_safe()
    return one


def enqueued_with_one_sync(stage: Stage) -> Iterator[Scene]:
    """Two to one queue, with one sync for all of their files."""
    scene = stage()
    one = _learned(scene)
    scene.begin()
    one.enqueue_together(("a", "send", None), ("b", "send", None))
    yield scene


def saved_with_one_sync(stage: Stage) -> Iterator[Scene]:
    """Three, likewise."""
    scene = stage()
    for name in "abc":
        scene.one.enqueue(name)
    one = _learned(scene)
    claims = [one.claim(name) for name in "abc"]
    scene.begin()
    one.settle(*(_saving(claim, "retry") for claim in claims))
    yield scene


CASES: dict[str, Case] = {name: _single(*operation) for name, operation in OPERATIONS.items()} | {
    "a whole life": life,
    "a life with waits": life_with_waits,
    "round and round": round_and_round,
    **{f"together: {name}": _together(batch) for name, batch in BATCHES.items()},
    "together: enqueued": enqueued_together,
    "together: enqueued to two queues, one with less": enqueued_with_less,
    "together: enqueued, one sync for all files": enqueued_with_one_sync,
    "together: three saved, one sync for all files": saved_with_one_sync,
    "levels mixed": levels_mixed,
    "levels mixed, direct operations": levels_mixed_directly,
    **{f"PROCESS spool: enqueue, POWER {name}": _raised(last, moved=False) for name, last in LAST.items()},
    **{f"PROCESS spool: enqueue, save, POWER {name}": _raised(last, moved=True) for name, last in LAST.items()},
}
