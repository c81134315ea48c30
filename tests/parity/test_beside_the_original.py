"""A spool that programs without locks, such as the original, may use beside this library."""

from __future__ import annotations

import datetime
import errno
import itertools
import os
from typing import TYPE_CHECKING

import pytest

from helpers.calls import FailingCalls
from helpers.children import quick_directory
from helpers.results import is_err
from helpers.spools import ANNE, BERT, MAIL, Mail, state_of
from trio_multispool import DirectoryNotEmpty, Err, NotAdopted, Ok, Remove, Retention, Retry, Save, Spool, Use

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

OURS = (".registry", ".tmp", ".data")
QUEUES = ("send", "retry", "failed")
OLD = 1_600_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


def directories(path: Path) -> dict[str, set[str]]:
    """Return what lies in the spool and in its queues, where the original looks."""
    return {where: set(os.listdir(path / where)) for where in (".", *QUEUES)}


AS_THE_ORIGINAL_MAKES_IT = {".": {*OURS, *QUEUES}} | {queue: {".checkout"} for queue in QUEUES}


async def test_a_spool_that_both_may_use_has_nothing_that_the_original_does_not_make(path):
    """Neither when it is made, nor when it is made again; and it is empty and sound."""
    for _ in range(2):
        (await Spool.create(path, MAIL, adopted=False)).unwrap().close()
        assert directories(path) == AS_THE_ORIGINAL_MAKES_IT
    assert not state_of(path).adopted
    (await Spool.load(path, MAIL)).unwrap().close()


async def test_work_leaves_nothing_in_the_queues_that_the_original_trips_over(path):
    """It takes all in a queue but `.checkout` for entries: so nothing can wait there, and no name is remembered."""
    spool = (await Spool.create(path, MAIL, adopted=False)).unwrap()
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"Hello")).unwrap()
    refused = Err(NotAdopted(os.fspath(path), "entries that wait"))
    assert await spool.enqueue(Mail.SEND, ANNE, b"", not_before=1) == refused
    assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a", remember=1)))
    async with (await entry.checkout()).unwrap() as job:
        assert await job.save(Mail.SEND, not_before=1) == refused
        (await job.save(Mail.RETRY, BERT)).unwrap()
    async with spool.reader(Mail.RETRY) as reader:
        assert await reader.iter_available(lambda *_: None, retry=Retry(dead_letter=Mail.FAILED)) == refused
        async for job in reader.available():
            async with job:
                assert directories(path) == AS_THE_ORIGINAL_MAKES_IT
    assert directories(path) == AS_THE_ORIGINAL_MAKES_IT | {"retry": {".checkout", entry.name}}
    (await spool.with_entry(spool.entry(Mail.RETRY, entry.name).unwrap(), remove)).unwrap()
    assert directories(path) == AS_THE_ORIGINAL_MAKES_IT
    assert not any(os.listdir(path / directory) for directory in OURS)


async def remove(*_: object) -> Remove:
    """Be done with it."""
    return Remove()


@pytest.mark.parametrize("made", [c for n in range(4) for c in itertools.combinations(OURS, n)], ids=str)
async def test_a_spool_that_was_half_made_is_finished_and_nothing_else_becomes_one(path, made):
    """Whichever directories its maker had made when it died; a file beside them is somebody else's."""
    for directory in made:
        (path / directory).mkdir(parents=True)
    (await Spool.create(path, MAIL, adopted=False)).unwrap().close()
    assert directories(path) == AS_THE_ORIGINAL_MAKES_IT
    if len(made) < len(OURS):
        other = path.with_name("other")
        for directory in made:
            (other / directory).mkdir(parents=True)
        other.mkdir(exist_ok=True)
        (other / "letter.txt").touch()
        assert await Spool.create(other, MAIL, adopted=False) == Err(DirectoryNotEmpty(os.fspath(other)))
        assert set(os.listdir(other)) == {*made, "letter.txt"}


async def test_a_spool_that_exists_stays_what_it_is(path):
    """`create` adopts nothing that was not, and takes back no adoption, which comes last."""
    spool = (await Spool.create(path, MAIL, adopted=False)).unwrap()
    (await Spool.create(path, MAIL)).unwrap().close()
    assert not state_of(path).adopted
    (await spool.adopt()).unwrap()
    again = (await Spool.create(path, MAIL, adopted=False)).unwrap()
    assert state_of(path).adopted
    (await again.enqueue(Mail.SEND, ANNE, b"", not_before=1)).unwrap()


def dates(path: Path, place: str, name: str) -> set[float]:
    """Return the dates of an entry's metadata and of its reservation, and make them old ones."""
    found = set()
    for file in (path / place / name, path / ".registry" / name):
        found.add(file.stat().st_mtime)
        os.utime(file, (OLD, OLD))
    return found


@pytest.mark.parametrize("adopted", [False, True], ids=["both use it", "adopted"])
async def test_a_move_renews_the_dates_of_an_entry_where_the_original_may_use_it_and_nowhere_else(path, adopted):
    """Those of its metadata and of its reservation: by them its monitor judges how long an entry lies where it is."""
    spool = (await Spool.create(path, MAIL, adopted=adopted)).unwrap()
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
    dates(path, "send", "a")
    seen = []
    async with (await entry.checkout()).unwrap() as job:
        seen.append(dates(path, "send/.checkout", "a"))
        (await job.release()).unwrap()
    seen.append(dates(path, "send", "a"))
    async with (await entry.checkout()).unwrap() as job:
        dates(path, "send/.checkout", "a")
        (await job.save(Mail.RETRY)).unwrap()
    seen.append(dates(path, "retry", "a"))
    async with (await spool.entry(Mail.RETRY, "a").unwrap().checkout()).unwrap() as job:
        dates(path, "retry/.checkout", "a")
        (await job.save(Mail.RETRY, BERT)).unwrap()
    seen.append({(path / ".registry/a").stat().st_mtime})
    assert [OLD in found for found in seen] == [adopted] * 4


async def test_what_cannot_be_dated_is_moved_all_the_same(path):
    """The date is for a monitor; the entry is for its reader."""
    calls = FailingCalls()
    spool = (await Spool.create(path, MAIL, adopted=False, system_calls=calls)).unwrap()
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    calls.fail("touch", errno.EPERM)

    async def move(*_: object) -> Save[Mail, object]:
        return Save(Mail.RETRY)

    assert await spool.with_entry(entry, move) == Ok(Save(Mail.RETRY))
    assert state_of(path).names("retry") == [entry.name]


async def test_a_retention_is_not_confused_by_the_dates_that_a_check_out_renews(path):
    """What was too old when it was looked at goes."""
    spool = (await Spool.create(path, MAIL, adopted=False)).unwrap()
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    dates(path, "send", entry.name)
    assert await spool.expire(Mail.SEND, Retention(max_age=datetime.timedelta(days=30))) == Ok([entry.name])
