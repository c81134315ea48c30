"""A spool with many queues: what it costs grows with them no faster than it must, and few directories are held open."""

from __future__ import annotations

import contextlib
import enum
import os
import resource
from typing import TYPE_CHECKING, Any

import pytest

from helpers.inside import storage_of
from helpers.spools import Envelope, quick_spool, state_of
from helpers.stores import enqueue, make_store
from helpers.syscalls import Recorder
from trio_multispool import Durability, Remove, Spoolable, SpoolGone
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.threads.grace import Grace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FEW, MANY = 10, 100
QUICK = Durability.PROCESS


class Counting:
    """A store with a number of queues, whose system calls are counted."""

    def __init__(self, path: Path, count: int) -> None:
        """Make it."""
        self.queues = tuple(f"q{number}" for number in range(count))
        make_store(path, queues=self.queues, durability=QUICK).close()
        self.calls = Recorder()
        self.store = make_store(path, queues=self.queues, durability=QUICK, calls=self.calls)

    def count(self, act: Callable[[], object]) -> int:
        """Return how many calls something makes the second time, when all that it needs is open."""
        for _ in range(2):
            self.calls.made.clear()
            _ = act()
        return len(self.calls.made)


def counted(tmp_path: Path, act: Callable[[Counting], object]) -> tuple[int, int]:
    """Return how many calls something makes with few queues, and with many."""
    found: list[int] = []
    for count in (FEW, MANY):
        spool = Counting(tmp_path / f"{count}", count)
        with contextlib.closing(spool.store):
            found.append(spool.count(lambda spool=spool: act(spool)))
    few, many = found
    return few, many


def take_and_remove(store: Any, name: str) -> None:
    """Take an entry of the first queue, and remove it."""
    from helpers.stores import remove

    remove(store, store.claim(Place("q0", State.AVAILABLE), name, before_commit=lambda: None))


def test_an_entry_takes_as_many_calls_with_many_queues_as_with_few(tmp_path: Path) -> None:
    """Under a name that nobody has twice."""

    def live(spool: Counting) -> None:
        reservation = spool.store.reserve("one", unique=True)
        from helpers.stores import enqueue_reserved

        enqueue_reserved(spool.store, reservation, "q0", b"{}", b"data")
        take_and_remove(spool.store, "one")

    few, many = counted(tmp_path, live)
    assert few == many


def test_a_name_is_looked_for_once_in_each_place(tmp_path: Path) -> None:
    """One that the caller chose may be in any of them: three for each queue."""

    def live(spool: Counting) -> None:
        enqueue(spool.store, "q0", "one", durability=QUICK)
        take_and_remove(spool.store, "one")

    few, many = counted(tmp_path, live)
    assert many - few == 3 * (MANY - FEW)


@pytest.mark.parametrize("dead", [1, 40])
def test_recovery_looks_at_each_directory_once_for_all_entries(tmp_path: Path, dead: int) -> None:
    """So what it costs is a sum of entries and queues, and no product."""
    found: list[int] = []
    for count in (FEW, MANY):
        spool = Counting(tmp_path / f"{count}", count)
        with contextlib.closing(spool.store) as store:
            for number in range(dead):
                queue = spool.queues[number % count]
                enqueue(store, queue, f"{number}", durability=QUICK)
                store.claim(Place(queue, State.AVAILABLE), f"{number}", before_commit=lambda: None).abandon()
            spool.calls.made.clear()
            recovered = [each.name for each in store.recover_all()]
            found.append(len(spool.calls.made))
        assert sorted(recovered) == sorted(f"{number}" for number in range(dead))
    few, many = found
    of_each_queue = 75  # its three places are looked at some times
    assert many - few <= of_each_queue * (MANY - FEW)


@pytest.fixture
def few_files() -> Iterator[None]:
    """Let this process have as many files open as is usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.anyio
@pytest.mark.usefixtures("few_files")
async def test_more_queues_than_files_that_may_be_open_can_be_used_at_the_same_time(tmp_path: Path) -> None:
    """An entry that is in hand meanwhile is settled where it is."""
    names = {f"q{number}": f"q{number}" for number in range(600)}
    queues: Any = enum.Enum("queues", names)  # type: ignore[misc]
    wide = Spoolable(queues=queues, metadata=Envelope, data=bytes)
    done: list[str] = []

    async def handle(envelope: Envelope, _data: object) -> Remove:
        done.append(envelope.recipient)
        return Remove()

    async with await quick_spool(tmp_path / "spool", wide) as spool:
        [first, *_] = queues
        held = (await spool.enqueue(first, Envelope("held"), b"")).unwrap()
        async with (await held.checkout()).unwrap() as job:
            for queue in queues:
                (await spool.enqueue(queue, Envelope(queue.value), b"")).unwrap()
            for queue in queues:
                async with spool.reader(queue) as reader:
                    (await reader.iter_available(handle)).unwrap()
            assert len(set(storage_of(spool).layout.fds.values())) <= 130
            (await job.remove()).unwrap()
    assert sorted(done) == sorted(names)
    assert state_of(tmp_path / "spool").entries() == set()


def test_what_is_to_come_afterwards_waits_for_those_under_way_and_not_for_later_ones() -> None:
    """Also when later ones begin without end, and when more is asked for meanwhile."""
    grace, done = Grace(), list[str]()
    grace.afterwards(lambda: done.append("at once"))
    assert done == ["at once"]
    first, second = grace.begin(), grace.begin()
    grace.afterwards(lambda: done.append("of two"))
    later = grace.begin()
    grace.afterwards(lambda: done.append("of three"))
    grace.end(first)
    assert done == ["at once"]
    grace.end(second)
    assert done == ["at once", "of two"]
    latest = grace.begin()
    grace.end(later)
    assert done == ["at once", "of two", "of three"]
    grace.end(latest)


def test_a_directory_is_closed_only_when_no_operation_can_be_using_it(tmp_path: Path) -> None:
    """Its descriptor is nobody else's before that."""
    queues = tuple(f"q{number}" for number in range(200))
    make_store(tmp_path / "spool", queues=queues).close()
    acts: list[Callable[[], None]] = []
    with contextlib.closing(make_store(tmp_path / "spool", queues=queues)) as store:
        layout = store.layout
        store.close_afterwards(acts.append)
        used = layout.fds["q0"]
        layout._most_held = 16
        for queue in queues:
            _ = layout.fds[queue]
        assert "q0" not in layout.fds
        assert os.fstat(used).st_ino == (tmp_path / "spool" / "q0").stat().st_ino
        for act in acts:
            act()
        assert os.fstat(layout.fds["q0"]).st_ino == (tmp_path / "spool" / "q0").stat().st_ino
    assert acts


def test_a_batch_that_looks_once_is_told_each_time_that_the_spool_is_another(tmp_path: Path) -> None:
    """What was found to be wrong is not taken for seen."""
    with contextlib.closing(make_store(tmp_path / "spool")) as store, store.in_one_look():
        (tmp_path / "spool").rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(SpoolGone):
                _ = store.names("send")
