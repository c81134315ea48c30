"""The times of files are whatever a program, or a machine with a wrong clock, has made of them."""

from __future__ import annotations

import datetime
import math
import os
from typing import TYPE_CHECKING

import pytest

from helpers.calls import WithoutSyncs
from helpers.children import quick_directory
from helpers.spools import ANNE, BERT, Mail, Wall, quick_spool, state_of
from trio_multispool import Err, Retention, TimeNotKept, Use
from trio_multispool.clock import wall_clock
from trio_multispool.entries.job import checkout_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

ODD = {"long-ago": -(10**11), "before-1970": -(10**9), "year-10000": 253_402_300_800, "far-ahead": 2**40}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


@pytest.mark.parametrize("stamp", ODD.values(), ids=ODD)
async def test_a_nonsense_stamp_on_one_file_breaks_no_listing_and_no_reader(path, stamp):
    """All other entries are listed, and come when they are due."""
    spool = await quick_spool(path)
    for name in ("odd", "other"):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name), not_before=3600)).unwrap()
        (await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use(f"{name}-there"))).unwrap()
    os.utime(path / "send/.waiting/odd", (stamp, stamp))
    os.utime(path / "send/.waiting/other", (1, 1))
    os.utime(path / "retry/odd-there", (stamp, stamp))
    found = (await spool.waiting(Mail.SEND)).unwrap()
    assert {entry.name for _, entry in found} == {"odd", "other"}
    assert [at for at, _ in found] == sorted(at for at, _ in found)
    for entry in (await spool.entries(Mail.RETRY)).unwrap():
        assert (await entry.stat()).unwrap().size
    names: list[str] = []
    async with spool.reader(Mail.SEND) as reader:
        while (job := (await reader.dequeue_available()).unwrap()) is not None:
            async with job:
                names.append(job.name)
                (await job.remove()).unwrap()
    assert names == (["odd", "other"] if stamp < 0 else ["other"])


class Coarse(WithoutSyncs):
    """A file system that keeps only every so many seconds, rounded down, and none after an end."""

    def __init__(self, grain: float, end: float = math.inf) -> None:
        """Remember both."""
        self.grain = grain
        self.end = end

    def set_modified(self, fd: int, when: float) -> None:
        """Keep what can be kept."""
        super().set_modified(fd, min(self.end, when // self.grain * self.grain))


@pytest.mark.parametrize("grain", [1e-7, 1e-6, 0.01, 1, 2])
@pytest.mark.parametrize("how", ["enqueued", "saved"])
async def test_nothing_is_handed_out_early_however_coarse_the_time_of_the_file_system(path, grain, how):
    """It is handed out at the time that is kept, which is not before it is due, and two seconds later at most."""
    wall = Wall()
    spool = await quick_spool(path, now=wall, system_calls=Coarse(grain))
    for number in range(5):
        delay = 10.123456 + 0.49 * number
        if how == "saved":
            entry = (await spool.enqueue(Mail.RETRY, ANNE, b"")).unwrap()
            async with (await entry.checkout()).unwrap() as job:
                (await job.save(Mail.SEND, not_before=delay)).unwrap()
        else:
            (await spool.enqueue(Mail.SEND, ANNE, b"", not_before=delay)).unwrap()
        due = wall.time + delay
        [(_, entry)] = (await spool.waiting(Mail.SEND)).unwrap()
        kept = (path / "send/.waiting" / entry.name).stat().st_mtime
        assert due <= kept <= due + (0.02 if grain < 1 else 2)
        async with spool.reader(Mail.SEND) as reader:
            wall.time = math.nextafter(due, 0)
            assert (await reader.dequeue_available()).unwrap() is None
            wall.time = kept
            job = (await reader.dequeue_available()).unwrap()
            async with job:
                (await job.remove()).unwrap()


@pytest.mark.parametrize("kept", ["the last time there is", "a time long ago"])
async def test_a_due_time_that_the_file_system_cannot_keep_is_refused_before_anything_is_done(path, kept):
    """Nothing is enqueued, and what was to be saved is its owner's, and goes back."""
    calls = Coarse(1, end=2**31 - 1)
    if kept == "a time long ago":
        calls.set_modified = lambda fd, when: WithoutSyncs.set_modified(calls, fd, when % 2**31)  # type: ignore[method-assign]
    spool = await quick_spool(path, system_calls=calls)
    at = datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC)
    refused = Err(TimeNotKept(os.fspath(path), at))
    assert await spool.enqueue(Mail.SEND, ANNE, b"", not_before=at) == refused
    assert await spool.enqueue_many(Mail.SEND, [(ANNE, b"")], not_before=at) == [refused]
    assert "2040-01-01 00:00:00+00:00" in str(refused.error)
    assert state_of(path).entries() == set()
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
    async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
        assert await job.save(Mail.SEND, not_before=at) == refused
        (await job.release()).unwrap()
    assert (state_of(path).names("send"), state_of(path).faults()) == (["a"], [])
    (await spool.enqueue(Mail.SEND, ANNE, b"", not_before=at.replace(year=2037))).unwrap()


@pytest.mark.parametrize("grain", [1, 2])
async def test_no_name_is_forgotten_early_however_coarse_the_time_of_the_file_system(path, grain):
    """It is remembered for as long as was asked for, and two seconds more at most."""
    wall = Wall()
    wall.time = max(wall.time, math.ceil(wall_clock()) + 86_400.0) + 0.75  # ahead of the kernel's, whatever the year is
    spool = await quick_spool(path, now=wall, system_calls=Coarse(grain))
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a", remember=10))).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        (await job.remove()).unwrap()
    wall.time += 9.999
    assert (await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=Use("a", remember=10))).unwrap() is None
    wall.time += 2.002
    assert (await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap() is not None


@pytest.mark.parametrize("how", ["saved as it was", "saved with new metadata", "its owner died"])
async def test_an_entry_that_is_taken_early_and_waits_no_longer_is_dated_anew(path, how):
    """Else its date were still to come, and told no age; in hand or in its queue, it has its bytes."""
    spool = await quick_spool(path)
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("a"), not_before=10 * 86_400)).unwrap()
    before = spool.path.stat().st_mtime
    job = (await entry.checkout(early=True)).unwrap()
    if how == "its owner died":
        checkout_of(job).claim.abandon()
        (await spool.recover()).unwrap()
    else:
        async with job:
            (await job.save(Mail.SEND, *([BERT] if "new" in how else []))).unwrap()
    state = state_of(path)
    assert (state.names("send"), state.faults()) == (["a"], [])
    there = (await entry.stat()).unwrap().modified_at.timestamp()
    assert (path / "send/a").stat().st_mtime == pytest.approx(there, abs=1e-5)
    assert before <= there < before + 86_400
    assert (await spool.expire(Mail.SEND, Retention(max_age=0))).unwrap() == ["a"]


@pytest.mark.parametrize("ends", [True, False], ids=["it ends in 2038", "it goes on"])
async def test_a_name_is_not_to_be_remembered_for_longer_than_the_file_system_can(path, ends):
    """It would be forgotten early, without a word. Where it can be, the entry is dated when it is written."""
    wall = Wall()
    calls = Coarse(1, end=2**31 - 1) if ends else WithoutSyncs()
    spool = await quick_spool(path, now=wall, system_calls=calls)
    use = Use("a", remember=datetime.timedelta(days=20 * 366))
    answer = await spool.enqueue(Mail.SEND, ANNE, b"", name=use)
    if ends:
        assert isinstance(answer, Err)
        assert isinstance(answer.error, TimeNotKept)
        assert (state_of(path).entries(), state_of(path).faults()) == (set(), [])
        use = Use("a", remember=datetime.timedelta(days=366))
        answer = await spool.enqueue(Mail.SEND, ANNE, b"", name=use)
    entry = answer.unwrap()
    assert (path / "send/a").stat().st_mtime <= (path / "send").stat().st_mtime
    async with (await entry.checkout()).unwrap() as job:
        (await job.remove()).unwrap()
    assert (await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=use)).unwrap() is None
