"""The times of files are whatever a program, or a machine with a wrong clock, has made of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers.children import quick_directory
from helpers.spools import ANNE, Mail, quick_spool
from trio_multispool import Use

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
