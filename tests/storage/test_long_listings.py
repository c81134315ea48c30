"""A listing of more entries than one hop tries, none of which can be had: it is worked off once, and then is done."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.calls import FailingCalls
from helpers.inside import checked_out_at, dequeuer_of, wrap_looks
from helpers.spools import MAIL, Envelope, Mail, names_in, put, quick_spool
from trio_multispool import Ok, Release, Remove, Spoolable, prioritized_names
from trio_multispool.storage.directory import window as listing_module
from trio_multispool.storage.directory.source import TRIES_AT_A_TIME
from trio_multispool.storage.directory.window import GONE_FROM_A_STALE_LISTING, NAMES_PER_GONE

if TYPE_CHECKING:
    from pathlib import Path

    from trio_multispool import QueueReader

pytestmark = pytest.mark.anyio

MANY = 2 * TRIES_AT_A_TIME
"""Whole hops: the last of them ends just where the listing does."""

HOPS = 8
"""More than it takes to work the listing off once, and to look at what is left."""


async def filled(path: Path, spoolable: Any = MAIL) -> Any:
    """Make a spool with so many entries."""
    spool = await quick_spool(path, spoolable)
    for answer in await spool.enqueue_many(Mail.SEND, [(Envelope(f"{number}"), b"") for number in range(MANY)]):
        _ = answer.unwrap()
    return spool


def bounded(reader: QueueReader[Any, Any, Any]) -> None:
    """Have the reader fail when it goes over the listing again and again."""
    hops = 0

    def counting(look: Any) -> Any:
        nonlocal hops
        found = look()
        hops = 0 if checked_out_at(found) else hops + 1
        if hops > HOPS:
            raise AssertionError(f"{hops} hops in a row had nothing")
        return found

    wrap_looks(reader, counting)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_pass_ends_that_has_given_all_entries_and_has_them_back(concurrency, tmp_path):
    """Each entry is given once, and the iteration ends, though all of them are in the queue again."""
    spool, given = await filled(tmp_path / "spool"), []

    async def handle(metadata: Envelope, _data: Any) -> Release:
        given.append(metadata.recipient)
        return Release()

    async with spool.reader(Mail.SEND) as reader:
        bounded(reader)
        assert await reader.iter_available(handle, concurrency=concurrency) == Ok(None)
    assert sorted(given, key=int) == [f"{number}" for number in range(MANY)]
    assert len(await names_in(spool, Mail.SEND)) == MANY


@pytest.mark.parametrize("names", [None, prioritized_names()])
async def test_a_reader_waits_that_cannot_have_any_of_many_entries(names, monkeypatch, tmp_path):
    """All are locked by others: it works the listing off once, and waits, instead of listing on and on.

    Also where it is always time to list again, because names need not sort by time.
    """
    monkeypatch.setattr(listing_module, "LISTINGS_OF_WORK", 0)
    spool = await filled(tmp_path / "spool", Spoolable(Mail, Envelope, bytes, names))
    first, *others = await names_in(spool, Mail.SEND)
    held = [os.open(tmp_path / "spool" / ".registry" / name, os.O_RDONLY) for name in others]
    try:
        for fd in held:
            fcntl.flock(fd, fcntl.LOCK_EX)
        async with spool.reader(Mail.SEND) as reader:
            async with (await reader.dequeue()).unwrap() as job:
                assert job.name == first
                (await job.remove()).unwrap()
            bounded(reader)
            waits = anyio.Event()

            async def wait(*_: object) -> None:
                waits.set()
                await anyio.sleep_forever()

            dequeuer_of(reader).session.changes.wait = wait  # type: ignore[method-assign]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reader.dequeue)
                await waits.wait()
                tasks.cancel_scope.cancel()
    finally:
        for fd in held:
            os.close(fd)


async def test_a_listing_of_which_others_have_had_most_is_made_again(tmp_path):
    """After a few that are gone, and not after all of them: each of many consumers would miss what the others had."""
    gone = GONE_FROM_A_STALE_LISTING * 5
    calls = FailingCalls()
    async with (
        await filled(tmp_path / "spool") as other,
        await quick_spool(tmp_path / "spool", system_calls=calls) as spool,
    ):
        handled = []

        async def handle(metadata: Envelope, _data: Any) -> Remove:
            handled.append(metadata.recipient)
            if len(handled) == 1:  # when the listing has been made
                for entry in (await other.entries(Mail.SEND)).unwrap()[:gone]:
                    (await entry.direct.remove()).unwrap()
                _ = await put(other, Mail.SEND, "a-later-one")
            return Remove()

        async with spool.reader(Mail.SEND) as reader:
            calls.made.clear()
            assert await reader.iter_available(handle) == Ok(None)
    assert sorted(handled[1:-1], key=int) == [f"{number}" for number in range(gone + 1, MANY)]
    assert handled[-1] == "a-later-one", "it is in the queue since, and a listing that is made again has it"
    listings = sum(call == "regular_files" and path.endswith("/send") for call, path in calls.made)
    assert 3 <= listings <= 5, "at first, again, and to see that nothing is left"
    missed = sum(call == "open" and "/.registry/" in path for call, path in calls.made) - len(handled)
    assert GONE_FROM_A_STALE_LISTING <= missed < gone / 2
    assert MANY < GONE_FROM_A_STALE_LISTING * NAMES_PER_GONE, "few enough names for that"


async def test_a_listing_is_not_made_again_for_what_is_busy(tmp_path):
    """It would have the same names."""
    calls = FailingCalls()
    async with await filled(tmp_path / "spool"), await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        registry = tmp_path / "spool" / ".registry"
        locks = [os.open(registry / name, os.O_RDONLY) for name in sorted(os.listdir(registry))[: MANY // 2]]
        try:
            for lock in locks:
                fcntl.flock(lock, fcntl.LOCK_EX)
            calls.made.clear()
            async with spool.reader(Mail.SEND) as reader:
                (await reader.dequeue_available()).unwrap()
        finally:
            for lock in locks:
                os.close(lock)
    assert sum(call == "regular_files" and path.endswith("/send") for call, path in calls.made) == 1
