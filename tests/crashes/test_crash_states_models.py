"""What the models of a disk allow, on recordings of a few calls: the sets of trees, counted by hand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from crash_states.disk import Change, Disk, Expect, Sync, Write, build
from crash_states.enumeration import crash_states
from crash_states.recording import Recording, RecordingCalls

if TYPE_CHECKING:
    from pathlib import Path

    from crash_states.disk import Record

A, B = 1, 2
"""Two directories."""
FILE = 3
EMPTY = Disk({(0, "a"): A, (0, "b"): B}, {})
FILED = Disk({(0, "a"): A, (0, "b"): B, (A, "n"): FILE}, {FILE: b"old"})

CREATE = Change("create a/n", (((A, "n"), FILE),))
TO_B = Change("move a/n -> b/n", (((A, "n"), None), ((B, "n"), FILE)))
UNLINK = Change("unlink b/n", (((B, "n"), None),))
SYNC_A, SYNC_B, SYNC_FILE, SYNC_ALL = Sync("sync a", A), Sync("sync b", B), Sync("sync a/n", FILE), Sync("sync", None)
WRITE = Write(FILE, 0, b"1234")


def left(disk: Disk, records: list[Record], model: str) -> set[str]:
    """Return what may be left at the end, each tree's files in words."""
    states = crash_states(disk, records, model, start=len(records))
    return {
        " ".join(sorted(f"{path}={content.decode()}" for path, content in tree if content is not None))
        for tree in states
    }


@pytest.mark.parametrize("model", ["ordered", "weak", "weaker"])
def test_what_was_not_synced_may_be_there_or_not_and_its_content_in_part(model: str) -> None:
    """A new file is there empty, half or full, or it is not there; once it was synced, it is full if it is there."""
    assert left(EMPTY, [CREATE, WRITE], model) == {"", "a/n=", "a/n=12", "a/n=1234"}
    assert left(EMPTY, [CREATE, WRITE, SYNC_A], model) == {"a/n=", "a/n=12", "a/n=1234"}
    assert left(EMPTY, [CREATE, WRITE, SYNC_ALL], model) == {"a/n=1234"}
    synced = {"a/n=1234"} if model == "ordered" else {"", "a/n=1234"}
    assert left(EMPTY, [CREATE, WRITE, SYNC_FILE], model) == synced


@pytest.mark.parametrize("model", ["ordered", "weak", "weaker"])
def test_what_was_safe_is_not_lost_by_a_write_that_was_not_synced(model: str) -> None:
    """A file that is written over holds the old, or the new, or the new up to its half."""
    assert left(FILED, [WRITE], model) == {"a/n=old", "a/n=12d", "a/n=1234"}
    assert left(FILED, [Write(FILE, 1, None)], model) == {"a/n=old", "a/n=o"}


def test_a_rename_is_never_half_on_disk() -> None:
    """The file is under one of the two names, whichever directory was synced."""
    for model in ("ordered", "weak", "weaker"):
        assert left(FILED, [TO_B], model) == {"a/n=old", "b/n=old"}
        for sync in (SYNC_A, SYNC_B, SYNC_ALL):
            assert left(FILED, [TO_B, sync], model) == {"b/n=old"}


def test_only_the_journal_keeps_the_order() -> None:
    """A file that was moved and unlinked is in either place, or gone; only without order is it gone from the second."""
    assert left(FILED, [TO_B, UNLINK], "ordered") == {"a/n=old", "b/n=old", ""}
    new = Change("create b/m", (((B, "m"), 4),))
    assert left(FILED, [TO_B, new], "ordered") == {"a/n=old", "b/n=old", "b/m= b/n=old"}
    assert left(FILED, [TO_B, new], "weak") == {"a/n=old", "b/n=old", "b/m= b/n=old", "a/n=old b/m="}


def test_a_second_rename_may_be_there_without_the_first() -> None:
    """Then the file has two names."""
    on = Change("move b/n -> /n", (((B, "n"), None), ((0, "n"), FILE)))
    assert left(FILED, [TO_B, on], "ordered") == {"a/n=old", "b/n=old", "n=old"}
    assert left(FILED, [TO_B, on], "weak") == {"a/n=old", "b/n=old", "n=old", "a/n=old n=old"}


def test_the_models_differ_in_what_a_sync_of_a_directory_makes_safe() -> None:
    """All of the changes to it, in the order of a journal or not; or only its entries as they are now."""
    assert left(FILED, [TO_B, UNLINK, SYNC_B], "ordered") == {""}
    assert left(FILED, [TO_B, UNLINK, SYNC_B], "weak") == {""}
    assert left(FILED, [TO_B, UNLINK, SYNC_B], "weaker") == {"", "a/n=old"}
    assert left(FILED, [TO_B, SYNC_A, UNLINK, SYNC_B], "weaker") == {""}


@pytest.mark.parametrize("model", ["ordered", "weak", "weaker"])
def test_the_power_may_fail_at_any_call(model: str) -> None:
    """States between two syncs are found too, each with what was expected then."""
    early, late = Expect("n", frozenset(("early",))), Expect("n", frozenset(("late",)))
    states = crash_states(EMPTY, [early, CREATE, SYNC_A, late], model)
    told = {len(tree): {each.outcomes for expected in all_ for each in expected} for tree, all_ in states.items()}
    assert told == {2: {early.outcomes}, 3: {early.outcomes, late.outcomes}}


def test_a_recording_says_what_was_done(tmp_path: Path) -> None:
    """Every kind of call that a disk notices is written down, and replayed it makes the tree that is there."""
    (tmp_path / "was").write_bytes(b"before")
    recording = Recording(tmp_path)
    calls = RecordingCalls(recording)
    root = calls.open_root(os.fspath(tmp_path))
    calls.make_directory("d", root, 0o700)
    directory = calls.open("d", os.O_RDONLY | os.O_DIRECTORY, root)
    fd = calls.open("f", os.O_RDWR | os.O_CREAT, directory)
    calls.write(fd, b"1234")
    calls.seek(fd, 1, os.SEEK_SET)
    calls.write(fd, b"x")
    calls.truncate(fd, 3)
    calls.exchange("was", root, "f", directory)
    calls.move("f", directory, "g", directory)
    calls.unlink("g", directory)
    calls.sync(directory)
    for each in (fd, directory, root):
        calls.close(each)
    [*_, last] = recording.records
    assert last == Sync("sync d", 2)
    [tree] = crash_states(recording.initial, [*recording.records, SYNC_ALL], "weak", start=len(recording.records) + 1)
    assert tree == {("was", b"1x3"), ("d", None)}
    built = tmp_path / "built"
    built.mkdir()
    build(tree, built)
    assert (built / "was").read_bytes() == (tmp_path / "was").read_bytes() == b"1x3"
