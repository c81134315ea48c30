"""A queue that a process may not read, or not enter, stops no other: real users, in one spool."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers import users
from helpers.proofs import thinned
from helpers.users import ANNE, multispool_as, run_as

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.skipif(bool(users.why_not()), reason=users.why_not()), pytest.mark.proof]

SHUT = [
    (directory, mode)
    for mode in (0o700, 0o744)
    for directory in ("failed", "failed/.checkout", "failed/.waiting", ".quarantine", ".quarantine/send")
]
"""What root may have made, with an old version or by hand. The first mode lets nobody else read, the second not enter.
"""

MAKE = """
import contextlib, os, sys
from helpers.stores import claim, enqueue, make_store
storage = make_store(sys.argv[1])
for name in ("gone", "mine", "theirs"):
    enqueue(storage, "send", name)
claimed = claim(storage, "send", "gone")
os._exit(0)
"""


MAKE_UNIQUE = """
import sys
from helpers.stores import DATA, OLD, enqueue_reserved, make_store, writing
storage = make_store(sys.argv[1])
storage.give_up(storage.reserve("unused", unique=True))
enqueue_reserved(storage, storage.reserve("streamed", unique=True), "send", OLD, writing(DATA))
"""


@pytest.fixture(params=thinned(SHUT, 4, lambda case: case[1]), ids=lambda case: f"{case[0]} {case[1]:o}")
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Make a spool of Anne's, in which a dead worker has an entry, and root has a directory with another in it."""
    with users.common_ground() as ground:
        spool = ground / "spool"
        spool.mkdir()
        os.chown(spool, ANNE.number, ANNE.number)
        assert run_as(ANNE, MAKE, spool).returncode == 0
        directory, mode = request.param
        shut = spool / directory
        place = spool / ".quarantine/send" if directory.startswith(".") else shut
        place.mkdir(parents=True, exist_ok=True)
        os.chown(place.parent, ANNE.number, ANNE.number)
        os.rename(spool / "send/theirs", place / "theirs")
        (spool / ".tmp/theirs").touch()  # as a writer leaves it that was killed
        os.chown(shut, 0, 0)
        shut.chmod(mode)
        yield spool


def names(directory: Path) -> list[str]:
    """Return what lies in a directory, but for other directories."""
    return sorted(found.name for found in directory.iterdir() if found.is_file())


def test_a_queue_that_cannot_be_read_keeps_no_other_from_being_loaded_recovered_and_worked_off(path):
    """What a dead owner had comes back, with a word on what was passed over; and nothing that was not seen is lost."""
    loaded = multispool_as(ANNE, "recover", path)
    assert "gone" in loaded.stdout, loaded
    assert "not permitted to" in loaded.stderr
    assert "gone" in names(path / "send")
    worked = multispool_as(ANNE, "work", path, "send", "--once", "--", "cat")
    assert worked.returncode == 0, worked
    assert {"gone", "mine"}.isdisjoint(names(path / ".data"))
    assert "theirs" in names(path / ".data")
    assert "theirs" in names(path / ".registry")


def test_a_queue_that_cannot_be_read_keeps_no_named_entry_out_of_another(path):
    """A new name is enqueued; a name that is reserved, perhaps by an entry that cannot be seen, is not given again."""
    assert multispool_as(ANNE, "put", path, "send", "/etc/hostname", "--name", "new").returncode == 0
    assert multispool_as(ANNE, "put", path, "send", "/etc/hostname", "--name", "new").returncode == 4
    assert multispool_as(ANNE, "put", path, "send", "/etc/hostname", "--name", "theirs").returncode != 0
    assert "new" in names(path / "send")


def test_a_queue_that_cannot_be_read_keeps_no_entry_of_another_from_being_looked_at_and_moved(path):
    """`ls`, `show` and `mv` do their work, and say what they passed over."""
    listed = multispool_as(ANNE, "ls", path, "--long")
    assert (listed.returncode, "mine" in listed.stdout, "theirs" in listed.stdout) == (0, True, False), listed
    assert "passed over" in listed.stderr
    assert "mine" in multispool_as(ANNE, "show", path, "mine").stdout
    moved = multispool_as(ANNE, "mv", path, "mine", "retry")
    assert (moved.returncode, names(path / "retry")) == (0, ["mine"]), moved
    assert multispool_as(ANNE, "show", path, "theirs").returncode != 0


def test_data_under_a_name_that_cannot_be_looked_for_is_left_alone(path):
    """An entry that has lost its reservation, and lies where it cannot be seen, keeps its data."""
    (path / ".registry/theirs").unlink()
    before = (path / ".data/theirs").read_bytes()
    refused = multispool_as(ANNE, "put", path, "send", "/etc/hostname", "--name", "theirs")
    assert refused.returncode == 1, refused
    assert (path / ".data/theirs").read_bytes() == before
    assert "theirs" not in names(path / "send")


@pytest.mark.parametrize("mode", [0o700, 0o744])
@pytest.mark.parametrize("directory", [".keys", ".notes", ".quarantine"])
def test_what_lies_beside_entries_and_cannot_be_entered_keeps_no_entry_from_being_removed(directory, mode):
    """Each is worked off once, and goes; that names are not remembered then is said once, and not for each.

    Nor does it keep out names that nobody can have had before.
    """
    with users.common_ground() as ground:
        spool = ground / "spool"
        spool.mkdir()
        os.chown(spool, ANNE.number, ANNE.number)
        assert run_as(ANNE, MAKE, spool).returncode == 0
        (spool / directory).mkdir()
        (spool / directory).chmod(mode)
        made = run_as(ANNE, MAKE_UNIQUE, spool)
        assert (made.returncode, "streamed" in names(spool / "send")) == (0, True), made
        worked = multispool_as(ANNE, "work", spool, "send", "--once", "--", "true")
        assert worked.returncode == 0, worked
        assert worked.stderr.count("no entry that is removed is remembered") == (directory == ".keys")
        assert names(spool / "send") == names(spool / ".data") == names(spool / ".registry") == []
