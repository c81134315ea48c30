"""Syncs that are shared: by threads that sync at the same time, and by one `syncfs` for a batch where that pays."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from helpers.calls import FailingCalls
from helpers.stores import OLD, QUEUES, enqueue, nothing, writing
from trio_multispool import StorageFailure
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.directory.syncs.queue import SyncQueue
from trio_multispool.storage.directory.syncs.whole import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    NOTICEABLE,
    SMALLEST,
    TRUSTED,
    Pace,
)
from trio_multispool.storage.requests import NewEntry

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

EXT4, XFS, OVERLAYFS = 0xEF53, 0x58465342, 0x794C7630


# Threads


class Disk:
    """Syncs; a batch can be held."""

    def __init__(self) -> None:
        """Begin with nothing synced."""
        self.batches: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.queue = SyncQueue(self.sync)

    def sync(self, needs: Collection[str]) -> dict[str, Exception]:
        """Sync what is wanted."""
        self.batches.append(sorted(needs))
        self.begun.release()
        assert self.may_end.acquire(timeout=60)
        if "bug" in needs:
            raise LookupError("bug")
        return {need: OSError(errno.EIO, need) for need in needs if need.startswith("bad")}


class Wanting(threading.Thread):
    """A thread that wants something synced."""

    def __init__(self, disk: Disk, *needs: str) -> None:
        """Begin to want it."""
        super().__init__(daemon=True)
        self.disk, self.needs = disk, needs
        self.failures: dict[str, Exception] | None = None
        self.raised: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Sync."""
        try:
            self.failures = self.disk.queue.sync(self.needs)
        except BaseException as error:  # noqa: BLE001  # for the test
            self.raised = error

    def outcome(self) -> dict[str, str] | None:
        """Wait for the end; return what failed."""
        self.join(60)
        return None if self.failures is None else {need: str(error) for need, error in self.failures.items()}


def until_waiting(disk: Disk, count: int) -> None:
    """Wait until so many threads wait for the next batch."""
    while len(disk.queue._waiting) < count:
        threading.Event().wait(0)


def test_threads_that_come_while_a_sync_is_under_way_share_the_next() -> None:
    """The first goes alone at once; what two want is synced once; each hears of its own failures."""
    disk = Disk()
    first = Wanting(disk, "a")
    assert disk.begun.acquire(timeout=60)
    others = [Wanting(disk, "b", "queue"), Wanting(disk, "bad c", "queue"), Wanting(disk, "d", "bad c")]
    until_waiting(disk, 3)
    for _ in range(2):
        disk.may_end.release()
    assert first.outcome() == {}
    assert [other.outcome() for other in others] == [{}, {"bad c": "[Errno 5] bad c"}, {"bad c": "[Errno 5] bad c"}]
    assert disk.batches == [["a"], ["b", "bad c", "d", "queue"]]


def test_a_sync_under_way_does_not_serve_who_comes_during_it() -> None:
    """What is wanted again is synced again: the first sync may have begun before it was written."""
    disk = Disk()
    first = Wanting(disk, "a")
    assert disk.begun.acquire(timeout=60)
    second = Wanting(disk, "a")
    until_waiting(disk, 1)
    disk.may_end.release()
    assert disk.begun.acquire(timeout=60)
    assert first.outcome() == {}
    assert second.failures is None
    disk.may_end.release()
    assert second.outcome() == {}
    assert disk.batches == [["a"], ["a"]]


def test_whoever_was_to_be_served_by_a_leader_that_raised_is_not_served() -> None:
    """The leader raises what it met; those whom it led raise too, and the next to come is served again."""
    disk = Disk()
    first = Wanting(disk, "a")
    assert disk.begun.acquire(timeout=60)
    others = [Wanting(disk, "bug"), Wanting(disk, "b")]
    until_waiting(disk, 2)
    for _ in range(2):
        disk.may_end.release()
    assert first.outcome() == {}
    assert [other.outcome() for other in others] == [None, None]
    assert {type(other.raised) for other in others} == {LookupError, RuntimeError}
    disk.may_end.release()
    assert Wanting(disk, "c").outcome() == {}


def test_many_threads_are_all_served_and_nobody_twice() -> None:
    """A hundred threads of ten syncs each: every one returns, and each need was synced after it was wanted."""
    done: list[str] = []
    mutex = threading.Lock()

    def sync(needs: Collection[str]) -> dict[str, Exception]:
        with mutex:
            done.extend(needs)
        return {}

    queue = SyncQueue(sync)

    def want(number: int) -> None:
        for turn in range(10):
            need = f"{number}-{turn}"
            assert queue.sync([need]) == {}
            with mutex:
                assert done.count(need) == 1

    threads = [threading.Thread(target=want, args=[number]) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == len(set(done)) == 1000


# Choosing


def test_a_single_entry_and_the_first_batch_are_synced_file_by_file() -> None:
    """There is nothing to gain, and then nothing to compare with."""
    pace = Pace()
    assert not pace.prefers_whole(100)
    pace.note_each(4, 0.004)
    assert not pace.prefers_whole(SMALLEST - 1)
    assert pace.prefers_whole(SMALLEST)


def test_how_few_are_worth_it_depends_on_the_file_system() -> None:
    """It is told, and counts from the first batch on."""
    pace = Pace(2)
    pace.note_each(4, 0.004)
    assert not pace.prefers_whole(1)
    assert pace.prefers_whole(2)


def test_a_sync_of_the_whole_that_was_dear_is_left_alone_for_ever_longer() -> None:
    """Eight batches, then sixteen, and so on; each one that was not dear halves that."""
    pace = Pace()
    pace.note_each(10, 0.01)
    pauses = []
    for _ in range(9):
        assert pace.prefers_whole(10)
        pace.note_whole(10, 1.0)
        pause = 0
        while not pace.prefers_whole(10):
            pause += 1
        pauses.append(pause)
    assert pauses == [min(FIRST_PAUSE * 2**turn, LONGEST_PAUSE) for turn in range(9)]
    pace.note_whole(10, 0.001)
    pace.note_failure()
    assert [pace.prefers_whole(10) for _ in range(LONGEST_PAUSE // 2 + 1)] == [False] * (LONGEST_PAUSE // 2) + [True]
    for _ in range(20):
        pace.note_whole(10, 0.001)
    pace.note_whole(10, 1.0)
    assert [pace.prefers_whole(10) for _ in range(FIRST_PAUSE + 1)] == [False] * FIRST_PAUSE + [True]


@pytest.mark.parametrize(
    ("seconds", "dear"), [(NOTICEABLE, False), (NOTICEABLE * 1.1, True), (NOTICEABLE * 0.9, False)]
)
def test_what_hardly_takes_any_time_is_never_dear(seconds: float, dear: bool) -> None:
    """However little each file by itself would have cost."""
    pace = Pace()
    pace.note_each(10, 0.0001)
    pace.note_whole(10, seconds)
    assert pace.prefers_whole(10) is not dear


@pytest.mark.parametrize(("seconds", "dear"), [(0.014, False), (0.016, True)])
def test_less_is_noticed_of_a_few(seconds: float, dear: bool) -> None:
    """One entry must not wait long for other programs' files."""
    pace = Pace(3)
    pace.note_each(3, 0.001)
    pace.note_whole(3, seconds)
    assert pace.prefers_whole(3) is not dear


def test_dear_is_what_costs_more_than_twice_each_by_itself() -> None:
    """By what each has cost lately: the newest measurement counts a fifth."""
    pace = Pace()
    pace.note_each(10, 1.0)
    pace.note_each(10, 2.0)
    pace.note_whole(10, 2.3)
    assert pace.prefers_whole(10), "0.12 s each: twice that is 2.4 s for ten"
    pace.note_whole(10, 2.5)
    assert not pace.prefers_whole(10)


# In a store


class On(FailingCalls):
    """A file system of some kind, which counts how often it was synced as a whole."""

    def __init__(self, kind: int | None) -> None:
        """Be of that type."""
        super().__init__()
        self.kind = kind

    def file_system_type(self, fd: int) -> int | None:
        """Tell the type."""
        return self.kind

    def sync_file_system(self, fd: int) -> None:
        """Sync everything; the real call would write what other programs left, and that takes its time."""
        self.made.append(("sync_file_system", os.readlink(f"/proc/self/fd/{fd}")))
        for fault in self.faults:
            if fault.call == "sync_file_system":
                fault.met += 1
                raise OSError(fault.errno, os.strerror(fault.errno))

    def syncs(self) -> list[str]:
        """Return what was synced since the last time."""
        made = [
            f"{call} {path.partition('/spool/')[2]}".rstrip() for call, path in self.made if call.startswith("sync")
        ]
        self.made.clear()
        return made


def several(store: Any, *names: str) -> list[BaseException | None]:
    """Enqueue several entries together."""
    wanted = [NewEntry(store.reserve(name), "send", OLD, writing(b""), None, nothing) for name in names]
    found: list[BaseException | None] = store.enqueue_together(wanted)
    return found


def opened(tmp_path: Path, kind: int | None) -> tuple[Any, On]:
    """Open a store on a file system of some kind, that has learnt what syncing costs."""
    calls = On(kind)
    store = DirectoryStorage.open(tmp_path / "spool", QUEUES, create=True, trust_file_system=True, calls=calls)
    enqueue(store, "send", "first")
    calls.syncs()
    return store, calls


@pytest.mark.parametrize("kind", sorted(TRUSTED))
def test_a_batch_is_synced_by_one_call_where_that_can_be_relied_on(tmp_path: Path, kind: int) -> None:
    """Through the descriptor of the spool's directory; then the queue, once. A single entry is synced by itself."""
    store, calls = opened(tmp_path, kind)
    assert several(store, "a", "b", "c") == [None, None, None]
    # Without a journal, ext4 goes by the same number, and leaves the disk's cache to whoever syncs next.
    assert calls.syncs() == ["sync_file_system", *(["sync"] if kind == EXT4 else []), "sync send"]
    enqueue(store, "send", "d")
    assert calls.syncs() == ["sync .data/d", "sync .tmp/d", "sync .data", "sync send"]
    store.close()


@pytest.mark.parametrize("kind", sorted(TRUSTED))
def test_on_xfs_that_is_so_of_a_single_entry_too(tmp_path: Path, kind: int) -> None:
    """Elsewhere one entry is synced file by file."""
    store, calls = opened(tmp_path, kind)
    assert several(store, "a") == [None]
    by_itself = ["sync .data/a", "sync .tmp/a", "sync .data"]
    assert calls.syncs() == [*(["sync_file_system"] if kind == XFS else by_itself), "sync send"]
    store.close()


@pytest.mark.parametrize("kind", [OVERLAYFS, 0x01021994, None], ids=["overlayfs", "tmpfs", "unknown"])
def test_elsewhere_each_file_is_synced_by_itself(tmp_path: Path, kind: int | None) -> None:
    """Where `syncfs` was not seen to do it, it is not relied on."""
    store, calls = opened(tmp_path, kind)
    assert several(store, "a", "b") == [None, None]
    assert calls.syncs() == ["sync .data/a", "sync .tmp/a", "sync .data/b", "sync .tmp/b", "sync .data", "sync send"]
    store.close()


def test_after_an_error_of_the_whole_each_file_is_asked_and_only_those_that_were_lost_fail(tmp_path: Path) -> None:
    """The error may be of another program's file. For a while, batches are synced file by file."""
    store, calls = opened(tmp_path, XFS)
    with calls.failing("sync_file_system", errno.EIO), calls.failing("sync", errno.EIO, "/.tmp/b"):
        outcomes = several(store, "a", "b", "c")
    assert [type(outcome) for outcome in outcomes] == [type(None), StorageFailure, type(None)]
    assert store.names("send") == ["a", "c", "first"]
    assert calls.syncs()[0] == "sync_file_system"
    for number in range(FIRST_PAUSE):
        assert several(store, f"{number}-d", f"{number}-e") == [None, None]
        assert "sync_file_system" not in calls.syncs()
    assert several(store, "f", "g") == [None, None]
    assert calls.syncs() == ["sync_file_system", "sync send"]
    store.close()


def test_a_directory_of_ext4_that_cannot_be_synced_after_the_whole_sends_each_file_to_the_disk(tmp_path: Path) -> None:
    """Then the whole is not believed, and each answers for itself."""
    store, calls = opened(tmp_path, EXT4)
    with calls.failing("sync", errno.EIO, "/spool", times=1):
        assert several(store, "a", "b") == [None, None]
    assert calls.syncs()[:4] == ["sync_file_system", "sync", "sync .data/a", "sync .tmp/a"]
    store.close()


def test_a_kernel_that_cannot_is_asked_once(tmp_path: Path) -> None:
    """ENOSYS: there is no such call, or it does not report what it could not write."""
    store, calls = opened(tmp_path, EXT4)
    with calls.failing("sync_file_system", errno.ENOSYS):
        assert several(store, "a", "b") == [None, None]
    assert calls.syncs()[0] == "sync_file_system"
    assert several(store, "c", "d") == [None, None]
    assert "sync_file_system" not in calls.syncs()
    store.close()


def test_after_a_directory_failed_nothing_is_served_by_a_sync_of_the_whole(tmp_path: Path) -> None:
    """What the failed sync lost, no later one brings back: a batch that was under way is refused too."""
    store, calls = opened(tmp_path, EXT4)
    reservations = [store.reserve(name) for name in ("a", "b")]

    def fail_meanwhile(file: Any) -> None:
        with calls.failing("sync", errno.EIO, "/retry"), pytest.raises(StorageFailure):
            store.syncs.directory("retry")

    first = NewEntry(reservations[0], "send", OLD, fail_meanwhile, None, nothing)
    second = NewEntry(reservations[1], "send", OLD, writing(b""), None, nothing)
    outcomes = store.enqueue_together([second, first])
    assert all(outcome is not None for outcome in outcomes)
    assert "sync_file_system" not in calls.syncs()
    assert store.names("send") == ["first"]
    store.close()
