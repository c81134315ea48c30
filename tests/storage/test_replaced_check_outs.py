"""What is in hand while a person exchanges the directories that it lies in, or came from, call by call of the store."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from helpers.stores import (
    DATA,
    DUE,
    OLD,
    claim,
    claim_waiting,
    enqueue,
    make_store,
    nothing,
    read_data,
    release,
    remove,
    save,
    sweep,
)
from trio_multispool.errors import OwnershipLost, StorageFailure
from trio_multispool.storage.requests import Saving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio_multispool.storage.directory.store import DirectoryStorage

SETTLE: dict[str, Callable[[Any, Any], object]] = {
    "save": lambda storage, claimed: save(storage, claimed, "failed", b"new"),
    "remove": remove,
    "release": release,
}


def replace(path: Path, directory: str, aside: Path) -> None:
    """Move a directory away, and make another."""
    os.rename(path / directory, aside)
    os.mkdir(path / directory)


def make_store_for_a_group(path: Path) -> DirectoryStorage:
    """Make a spool that others may use too."""
    make_store(path).close()
    os.chmod(path, 0o770)
    return make_store(path)


@pytest.mark.parametrize("settle", SETTLE)
def test_another_file_of_the_name_in_a_directory_that_was_moved_away_is_not_what_is_in_hand(
    settle: str, tmp_path: Path
) -> None:
    """An owner from whom an entry was taken gets `OwnershipLost`, and whoever took it keeps it, with its data."""
    path = tmp_path / "spool"
    storage = make_store(path)
    for name in ("x", "other"):
        enqueue(storage, "send", name, OLD, DATA)
        claim(storage, "send", name).abandon()  # its owner was killed
    replace(path, "send/.checkout", tmp_path / "aside")
    _ = sweep(storage)
    enqueue(storage, "send", "x", OLD, DATA)
    ours = claim(storage, "send", "x")
    other = make_store(path)
    [theirs] = other.claims_unsafe("send")
    assert other.settle([Saving(theirs, "failed", None, None, nothing)]) == [None]
    with pytest.raises(OwnershipLost):
        SETTLE[settle](storage, ours)
    assert (path / "failed/x").read_bytes() == OLD
    assert read_data(other, "x") == DATA
    assert not (path / "send/x").exists()


@pytest.mark.parametrize("settle", SETTLE)
@pytest.mark.parametrize("place", ["symlink", "file"])
def test_what_is_in_hand_is_settled_where_it_is_though_something_else_is_in_that_place(
    place: str, settle: str, tmp_path: Path
) -> None:
    """A symlink to where the check-outs were moved to, say: they are held."""
    path = tmp_path / "spool"
    storage = make_store(path)
    for name in ("x", "y"):
        enqueue(storage, "send", name, OLD, DATA)
    ours = claim(storage, "send", "x")
    os.rename(path / "send/.checkout", tmp_path / "aside")
    if place == "symlink":
        os.symlink(tmp_path / "aside", path / "send/.checkout")
    else:
        (path / "send/.checkout").touch()
    with pytest.raises(StorageFailure, match=r"\.checkout.*ENOTDIR"):
        claim(storage, "send", "y")
    SETTLE[settle](storage, ours)
    there = {"save": ["failed/x"], "remove": [], "release": ["send/x"]}[settle]
    assert [found for found in ("failed/x", "send/x") if (path / found).exists()] == there
    assert not (tmp_path / "aside/x").exists()


def test_what_waited_goes_back_though_its_queue_was_replaced_by_one_without_the_directory_for_it(
    tmp_path: Path,
) -> None:
    """It is made: else the entry would lie where nobody sees it, and its data would be collected."""
    path = tmp_path / "spool"
    storage = make_store(path)
    enqueue(storage, "send", "x", OLD, DATA, due_at=DUE)
    ours = claim_waiting(storage, "send", "x")
    replace(path, "send", tmp_path / "aside")
    os.mkdir(path / "send/.checkout")
    release(storage, ours)
    assert sweep(storage) == []
    assert (path / "send/.waiting/x").exists()
    assert read_data(storage, "x") == DATA


def test_a_queue_that_is_moved_away_and_back_is_the_same_one(tmp_path: Path) -> None:
    """What is in hand is settled in it, and it is held once: no descriptor is left over, or closed too early."""
    path = tmp_path / "spool"
    storage = make_store(path)
    enqueue(storage, "send", "x", OLD, DATA)
    enqueue(storage, "send", "y", OLD, DATA)
    ours = claim(storage, "send", "x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        replace(path, "send", tmp_path / "aside")
        assert storage.names("send") == []
        os.rmdir(path / "send")
        os.rename(tmp_path / "aside", path / "send")
        assert storage.names("send") == ["y"]
    assert len(os.listdir("/proc/self/fd")) <= before + 6  # of the other five, and of its check-outs
    release(storage, ours)
    assert storage.names("send") == ["x", "y"]
    claim(storage, "send", "y").abandon()
    storage.close()


def test_chance_that_repeats_itself_keeps_no_directory_from_being_made(tmp_path: Path) -> None:
    """In a program that sets it, a process that was killed has left a directory of the name that would be next."""
    path = tmp_path / "spool"
    storage = make_store_for_a_group(path)
    state = random.getstate()
    try:
        random.seed(17)
        assert storage.layout.ensure_directory("send/.waiting")
        random.seed(17)
        os.mkdir(path / f".new.{random.randrange(1 << 32):08x}")
        random.seed(17)
        assert storage.layout.ensure_directory("failed/.waiting")
    finally:
        random.setstate(state)
    assert (path / "failed/.waiting").is_dir()


def test_a_directory_that_is_being_made_never_lies_in_a_queue(tmp_path: Path) -> None:
    """There, the programs of others would take it for an entry."""
    path = tmp_path / "spool"
    storage = make_store_for_a_group(path)
    seen: list[str] = []
    move = storage.layout.calls.move

    def watched(*arguments: Any) -> None:
        seen.extend(found.relative_to(path).parts[0] for found in path.rglob(".new.*"))
        move(*arguments)

    storage.layout.calls.move = watched  # type: ignore[method-assign]
    assert storage.layout.ensure_directory("send/.waiting")
    assert len(seen) == 1
    assert seen[0].startswith(".new.")
    shutil.rmtree(path)
