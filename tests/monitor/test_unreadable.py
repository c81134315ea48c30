"""What a process may not read is a problem of its own, and hides no other: real users, in one spool."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from helpers import users
from helpers.proofs import thinned
from helpers.spools import MAIL
from helpers.users import ANNE, ROOT, multispool_as, run_as
from trio_multispool import Spool
from trio_multispool.monitor import Dir, Kind, Monitor, Unreadable
from trio_multispool.monitor.examiner import Past

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(users.why_not()), reason=users.why_not())

MAKE = """
import contextlib, sys
from helpers.stores import enqueue, make_store
with contextlib.closing(make_store(sys.argv[1])) as storage:
    for name in ("a", "b", "lost"):
        enqueue(storage, "send", name)
"""


@pytest.fixture
def path() -> Iterator[Path]:
    """Make a spool of Anne's with three entries; one has lost its data."""
    with users.common_ground() as directory:
        (directory / "spool").mkdir()
        os.chown(directory / "spool", ANNE.number, ANNE.number)
        assert run_as(ANNE, MAKE, directory / "spool").returncode == 0
        (directory / "spool/.data/lost").unlink()
        yield directory / "spool"


def take(path: Path, mode: int) -> None:
    """Give a file or directory to root, as if root had made it."""
    os.chown(path, 0, 0)
    path.chmod(mode)


def wrong(path: Path, user: users.User) -> dict[tuple[str, str], str]:
    """Return the problems that `fsck` finds as some user: the message, by kind and name."""
    found = multispool_as(user, "fsck", path, "--json")
    assert found.returncode == 7, found
    return {(each["problem"], each["name"]): each["message"] for each in json.loads(found.stdout)["problems"]}


@pytest.mark.parametrize("user", [ANNE, ROOT], ids=["the owner", "root"])
@pytest.mark.parametrize(
    ("directory", "what"),
    [("send", "the metadata of entry"), (".data", "the data of"), (".registry", "the reservation of")],
)
def test_a_file_that_the_spools_owner_may_not_read_is_told_with_its_owner(path, user, directory, what):
    """The owner's check and root's name it, and whose it is; they find all else."""
    take(path / directory / "a", 0o600)
    assert wrong(path, user) == {
        ("Unreadable", "a"): f"{what} 'a' in {directory} cannot be read: it belongs to root:root, mode 600",
        ("MissingData", "lost"): "entry 'lost' in send has lost its data",
    }


@pytest.mark.proof
@pytest.mark.parametrize("user", [ANNE, ROOT], ids=["the owner", "root"])
@pytest.mark.parametrize(
    ("directory", "where", "mode"),
    thinned(
        [
            ("failed", ".", 0o700),
            ("failed", ".", 0o744),
            ("failed/.checkout", "failed", 0o700),
            ("failed/.checkout", "failed", 0o744),
            (".quarantine", ".", 0o700),
            (".quarantine", ".", 0o744),
            (".quarantine/x", ".quarantine", 0o700),
            (".notes", ".", 0o700),
            (".notes", ".", 0o744),
            (".keys", ".", 0o700),
        ],
        3,
    ),
)
def test_a_directory_that_the_spools_owner_may_not_enter_is_told_with_its_owner(path, user, directory, where, mode):
    """Nothing that may lie in it is taken for missing, and what is wrong elsewhere is found."""
    if directory.startswith("."):
        (path / directory).mkdir(parents=True)
        os.chown(path / directory.partition("/")[0], ANNE.number, ANNE.number)
    else:
        os.rename(path / "send/b", path / directory / "b")
    take(path / directory, mode)
    name = directory.rpartition("/")[2]
    found = wrong(path, user)
    if user is ROOT:  # who sees what is in it
        found = {key: message for key, message in found.items() if key[0] in ("Unreadable", "MissingData")}
    told = f"the directory {name!r} in {where} cannot be read: it belongs to root:root, mode {mode:o}"
    assert found == {
        ("Unreadable", name): told,
        ("MissingData", "lost"): "entry 'lost' in send has lost its data",
    }


@pytest.mark.parametrize(
    ("directory", "what"),
    [
        (Dir(Kind.QUEUE, "send"), "the metadata of entry"),
        (Dir(Kind.WAITING, "send"), "the metadata of entry"),
        (Dir(Kind.CHECKOUT, "send"), "the metadata of entry"),
        (Dir(Kind.QUARANTINE, "send"), "the metadata of entry"),
        (Dir(Kind.DATA), "the data of"),
        (Dir(Kind.REGISTRY), "the reservation of"),
        (Dir(Kind.NOTES), "the notes of"),
    ],
    ids=lambda each: each.path if isinstance(each, Dir) else "",
)
async def test_later_checks_of_a_watch_find_what_is_new_and_keep_what_was_there(path, directory, what):
    """Wherever it lies, though only new files are looked at; and the problem ends when the file is given back."""
    (path / ".data/lost").touch()
    (path / directory.path).mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        if directory.place is not None:
            os.rename(path / "send" / name, path / directory.path / name)
        elif directory.kind is Kind.NOTES:
            (path / directory.path / name).write_text("{}")
            os.chown(path / directory.path / name, ANNE.number, ANNE.number)
    async with (await Spool.load_unsafe(path, MAIL)).unwrap() as spool:
        monitor = Monitor(spool)

        async def unreadable(past: Past | None) -> list[Unreadable]:
            return [each for each in (await monitor._look(past)).unwrap() if isinstance(each, Unreadable)]

        told: list[Unreadable] = []
        began_at = os.stat(path).st_ctime
        for name in ("a", "b"):
            assert await unreadable(Past(began_at, tuple(told))) == told
            take(path / directory.path / name, 0o600)
            new = Unreadable(name, directory, what)
            assert await unreadable(Past(began_at, tuple(told))) == [*told, new]
            told.append(new)
        late = Past(os.stat(path / directory.path / "b").st_ctime + 60, tuple(told))
        assert await unreadable(late) == told == await unreadable(None)
        os.chown(path / directory.path / "a", ANNE.number, ANNE.number)
        assert await unreadable(late) == [Unreadable("b", directory, what)]
