"""After every kill, without any recovery: what each other operation finds, answers and leaves."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from helpers.aftermath import FOLLOW_UPS, Aftermath, entry_of
from helpers.children import quick_directory
from helpers.figures import Proof
from helpers.killing import copied, kill_at_every_call
from helpers.proofs import every, thinned
from helpers.spools import state_of
from helpers.stores import OPERATIONS, QUEUES, sweep
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.aftermath import Entry
    from helpers.killing import Killed


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """Say where the spools are to be."""
    with quick_directory(tmp_path) as directory:
        yield directory


def recovered(path: Path) -> dict[str, Entry | None]:
    """Recover a spool; insist that nothing is left over, and return what the entries are."""
    storage = DirectoryStorage.open(path, QUEUES)
    sweep(storage)
    storage.close()
    assert state_of(path).faults() == []
    return {name: entry_of(path, name) for name in ("a", "a.two")}


def follow(killed: Killed, follow_up: str, to: Path, whole: dict[str, Entry | None]) -> None:
    """Do one thing to a copy of what a kill left, and then recover."""
    path = copied(killed, to)
    storage = DirectoryStorage.open_unsafe(path)
    try:
        expected = FOLLOW_UPS[follow_up](Aftermath(path, storage, state_of(path), whole["a"]))
    finally:
        storage.close()
    now = recovered(path)
    assert now["a"] == expected
    assert now["a.two"] == whole["a.two"]


def follow_ups_of(number: int) -> list[str]:
    """Return what is done to a tree: from one tree to the next other ones, so that each is done to some."""
    return [*FOLLOW_UPS][number % every(20) :: every(20)]


@pytest.mark.proof
@pytest.mark.parametrize(
    ("operation", "flags"),
    [*itertools.product(thinned(OPERATIONS, 8), [True]), *itertools.product(thinned(OPERATIONS, 14), [False])],
    ids=lambda each: {True: "rename flags", False: "no rename flags"}.get(each, each),
)
def test_after_a_kill_at_any_call_every_operation_behaves_without_a_recovery(base, operation, flags, count):
    """Each does what the files call for, or answers so; never that the dead are busy. Nothing is lost or left over."""
    wrong: list[str] = []
    tried = 0
    states = kill_at_every_call(base, operation, flags=flags)
    for number, killed in enumerate(states):
        whole = recovered(copied(killed, base / "reference"))
        for follow_up in follow_ups_of(number):
            tried += 1
            try:
                follow(killed, follow_up, base / "copy", whole)
            except Exception as error:  # noqa: BLE001  # all that goes wrong is told at once
                wrong.append(f"killed before {killed.before!r}, then {follow_up}: {error!r}".partition("\n")[0])
    count(
        Proof.AFTER_A_KILL,
        operations=int(flags),
        different_trees=len(states),
        times=tried,
        bad=len(wrong),
    )
    assert wrong == []
    assert len(states) > 1
