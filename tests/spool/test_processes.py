"""Many workers on one queue, in processes, threads, tasks and event loops: each entry is claimed exactly once."""

from __future__ import annotations

import collections
import queue
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from helpers.children import Child
from helpers.spools import Mail, load_spool, state_of
from helpers.stores import fill, store_at, sweep
from trio_multispool import Durability, Remove, Save

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.spools import Location

ENTRIES = 1000
NAMES = [f"{number:04}" for number in range(ENTRIES)]


@pytest.fixture
def filled(place: Location) -> Location:
    """Make a spool with a thousand entries in `send`."""
    storage = store_at(place, durability=Durability.PROCESS)
    fill(storage, "send", NAMES)
    storage.close()
    return place


def check_reports(reports: dict[str, list[str]], *, together: bool = True) -> None:
    """Insist that every entry is in one report, once, and that no worker was idle."""
    claimed = collections.Counter(name for report in reports.values() for name in report)
    assert {name: times for name, times in claimed.items() if times != 1} == {}
    assert sorted(claimed) == NAMES
    assert not together or all(reports.values()), {worker: len(report) for worker, report in reports.items()}


def gather(directory: Path) -> dict[str, list[str]]:
    """Read the workers' reports."""
    return {report.name: report.read_text().split() for report in directory.iterdir()}


def claim_with_threads(parent, place, reports, worker) -> None:
    """Work a queue off with two threads on one store; each writes down what it claimed, before it settles it."""
    import threading

    from helpers.stores import available, nothing, save, store_at
    from trio_multispool import Durability, Unavailable

    def work(number: int) -> None:
        with open(f"{reports}/{worker}-{number}", "w") as report:
            while names := storage.names("send"):
                for name in names:
                    claim = storage.claim(available("send"), name, before_commit=nothing)
                    if isinstance(claim, Unavailable):
                        continue
                    print(name, file=report)
                    save(storage, claim, "retry", None, durability=None, before_commit=nothing)

    storage = store_at(place, durability=Durability.PROCESS)
    parent.say("ready")
    parent.hear()
    threads = [threading.Thread(target=work, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def claim_with_tasks(parent, place, reports, worker) -> None:
    """Work a queue off with two tasks, each with a reader of its own, in one event loop."""
    import anyio

    from helpers.spools import Mail, load_spool
    from trio_multispool import Durability

    async def work(spool, number: int) -> None:
        with open(f"{reports}/{worker}-{number}", "w") as report:  # noqa: ASYNC230  # short, and in a process of its own
            async with spool.reader(Mail.SEND) as reader:
                async for job in reader.available():
                    async with job:
                        print(job.name, file=report)
                        (await job.save(Mail.RETRY)).unwrap()

    async def main() -> None:
        async with await load_spool(place, durability=Durability.PROCESS) as spool:
            parent.say("ready")
            parent.hear()
            async with anyio.create_task_group() as tasks:
                for number in range(2):
                    tasks.start_soon(work, spool, number)

    anyio.run(main, backend="trio")


@pytest.mark.parametrize("work", [claim_with_threads, claim_with_tasks], ids=["threads", "tasks"])
def test_two_processes_with_two_workers_each_claim_a_thousand_entries_exactly_once(filled, tmp_path, work):
    """The four reports hold every entry once; every entry has moved once, whole."""
    reports = tmp_path / "reports"
    reports.mkdir()
    with Child(work, filled, reports, "one") as one, Child(work, filled, reports, "two") as two:
        for child in (one, two):
            child.hear()
        for child in (one, two):
            child.tell("go")
        for child in (one, two):
            child.end()
    check_reports(gather(reports), together=False)
    state = state_of(filled)
    assert state.names("retry") == NAMES
    assert state.faults() == []


@pytest.mark.sample
def test_entries_that_killed_workers_held_are_claimed_once_more_and_no_others(filled, tmp_path):
    """Workers that are killed in the midst of their work lose nothing; what they had settled is not done again."""
    reports = tmp_path / "reports"
    reports.mkdir()

    def work_until_killed(parent, place, report) -> None:
        from helpers.stores import available, save, store_at
        from trio_multispool import Durability

        storage = store_at(place, durability=Durability.PROCESS)
        parent.say("ready")
        parent.hear()
        with open(report, "w", buffering=1) as settled:
            for name in storage.names("send"):
                claimed = storage.claim(available("send"), name, before_commit=lambda: None)
                if not hasattr(claimed, "metadata"):
                    continue
                save(storage, claimed, "retry", None, durability=None, before_commit=lambda: None)
                print(name, file=settled)
                if name.endswith("50"):
                    parent.say("kill me")

    for round_ in range(3):
        with (
            Child(work_until_killed, filled, reports / f"{round_}-0") as one,
            Child(work_until_killed, filled, reports / f"{round_}-1") as two,
        ):
            for child in (one, two):
                child.hear()
            for child in (one, two):
                child.tell("go")
            (one if round_ % 2 else two).kill()
            other = two if round_ % 2 else one
            for _ in range(2):
                if other.process.stdout.readline() == "":
                    break
            other.process.kill()
    settled = [name for report in gather(reports).values() for name in report]
    assert len(settled) == len(set(settled))
    storage = store_at(filled)
    sweep(storage)
    state = state_of(filled)
    assert set(settled) <= set(state.names("retry"))
    assert sorted(state.names("send") + state.names("retry")) == NAMES
    assert state.faults() == []
    storage.close()


@pytest.mark.anyio
async def test_two_spools_in_one_process_claim_a_thousand_entries_exactly_once(filled):
    """Two loads of one directory, in one event loop, exclude each other like two processes."""
    reports: dict[str, list[str]] = {"one": [], "two": []}

    async def work(worker: str) -> None:
        async def handle(envelope, data):
            reports[worker].append(data.name)
            return Remove()

        async with (
            await load_spool(filled, durability=Durability.PROCESS) as spool,
            spool.reader(Mail.SEND) as reader,
        ):
            (await reader.iter_available(handle, concurrency=2)).unwrap()

    async with anyio.create_task_group() as tasks:
        for worker in reports:
            tasks.start_soon(work, worker)
    check_reports(reports)
    assert (state_of(filled).entries(), state_of(filled).faults()) == (set(), [])


@pytest.mark.parametrize("backends", [("trio", "trio"), ("asyncio", "trio"), ("asyncio", "asyncio")], ids="-".join)
def test_two_event_loops_in_two_threads_claim_a_thousand_entries_exactly_once(filled, backends):
    """A spool in each of two event loops of one process: they share nothing but the directory."""
    reports: dict[str, list[str]] = {"0": [], "1": []}
    barrier = threading.Barrier(2)

    async def work(worker: str) -> None:
        async def handle(envelope, data):
            reports[worker].append(data.name)
            return Save(Mail.RETRY)

        async with await load_spool(filled, durability=Durability.PROCESS) as spool:
            barrier.wait()
            async with spool.reader(Mail.SEND) as reader:
                (await reader.iter_available(handle, concurrency=2)).unwrap()

    threads = [
        threading.Thread(target=anyio.run, args=[work, f"{number}"], kwargs={"backend": backend})
        for number, backend in enumerate(backends)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_reports(reports)
    assert state_of(filled).names("retry") == NAMES
    assert state_of(filled).faults() == []


def produce(parent, place, first) -> None:
    """Enqueue every second of 500 entries."""
    from helpers.stores import enqueue, store_at
    from trio_multispool import Durability

    storage = store_at(place, durability=Durability.PROCESS)
    for number in range(first, 500, 2):
        enqueue(storage, "send", f"{number:04}")


def test_two_producers_and_two_workers_lose_nothing(place):
    """Entries that are enqueued by two processes while two others work are each handled once."""

    def consume(parent, place) -> None:
        import signal

        import anyio

        from helpers.spools import Mail, load_spool
        from trio_multispool import Durability, Remove

        async def handle(envelope, data):
            parent.say(data.name)
            return Remove()

        async def main() -> None:
            async with (
                await load_spool(place, durability=Durability.PROCESS) as spool,
                spool.reader(Mail.SEND, poll_interval=0.02) as reader,
            ):
                signal.signal(signal.SIGTERM, lambda *_: reader.stop())
                parent.say("ready")
                (await reader.iter(handle, concurrency=2)).unwrap()

        anyio.run(main, backend="trio")

    handled: queue.Queue[str] = queue.Queue()

    def listen(child: Child) -> None:
        for [name] in child:
            handled.put(name)

    store_at(place).close()
    with Child(consume, place) as one, Child(consume, place) as two:
        for child in (one, two):
            assert child.hear() == ["ready"]
        listeners = [threading.Thread(target=listen, args=[child]) for child in (one, two)]
        for listener in listeners:
            listener.start()
        with Child(produce, place, 0) as even, Child(produce, place, 1) as odd:
            even.end()
            odd.end()
        names = [handled.get() for _ in range(500)]
        for child in (one, two):
            child.process.terminate()
            child.end()
        for listener in listeners:
            listener.join()
    assert handled.empty()
    assert sorted(names) == [f"{number:04}" for number in range(500)]
    assert (state_of(place).entries(), state_of(place).faults()) == (set(), [])
