"""The worker threads that batches go through: one is used again, ends when nobody needs it, and is not inherited."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.forks import in_a_fork
from helpers.gates import Gate
from helpers.spools import ANNE, Mail, names_in, quick_spool
from trio_multispool.threads import pool as threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _none_idle() -> Iterator[None]:
    """Keep those of other tests out of the way."""
    kept = dict(threads._idle)
    threads._idle.clear()
    yield
    threads._idle.update(kept)


def run(work: Any = lambda: None) -> threading.Thread:
    """Run something in a worker thread, wait for it, and return the thread."""
    told, ran = threading.Event(), []

    def noting() -> None:
        ran.append(threading.current_thread())
        work()

    threads.start(noting, told.set)
    assert told.wait(60)
    return ran[0]


def test_a_thread_that_is_done_has_the_next_job() -> None:
    """Whoever is told may start it: the thread is idle by then."""
    first = run()
    assert [run() for _ in range(20)] == [first] * 20
    assert first.daemon, "it keeps no process from exiting"


def test_a_job_that_comes_meanwhile_has_a_thread_of_its_own() -> None:
    """No job waits for another; of two idle threads, the one that was at work last is next."""
    hold = threading.Event()
    inner: list[threading.Thread] = []

    def work() -> None:
        inner.append(run())
        hold.set()

    outer = run(work)
    assert hold.is_set()
    assert inner[0] is not outer
    assert run() is outer


def test_it_ends_when_nobody_has_needed_it_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next job has a new one."""
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.01)
    first = run()
    first.join(60)
    assert not first.is_alive()
    assert not threads._idle
    second = run()
    assert second is not first
    second.join(60)


@pytest.mark.parametrize("given", ["before it looks again", "when it waits again"])
def test_one_that_is_taken_as_it_is_about_to_end_does_its_job_and_the_next(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks once more whether it is still idle, and has what it is given; no job is left over or done twice."""
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.01)
    about_to_end, go_on, done = (threading.Event() for _ in range(3))
    ran: list[str] = []

    class Slow(dict[Any, bool]):
        """Lets go of a thread slowly, the first time."""

        def pop(self, given: Any, default: Any = None) -> Any:
            if not about_to_end.is_set():
                monkeypatch.setattr(threads, "IDLE_SECONDS", 60)
                about_to_end.set()
                assert go_on.wait(60)
            return super().pop(given, default)

    monkeypatch.setattr(threads, "_idle", Slow())
    first = run()
    assert about_to_end.wait(60)
    worker, _ = threads._idle.popitem()
    if given == "when it waits again":
        go_on.set()
    worker.put((lambda: ran.append("the job"), done.set))
    go_on.set()
    assert done.wait(60)
    assert [run(lambda: ran.append("another")) for _ in range(3)] == [first] * 3
    assert ran == ["the job", *["another"] * 3]


def test_nothing_was_run_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """`RuntimeError`, as of the interpreter; the next job has one again."""

    def no_more(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ran: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.start(lambda: ran.append("work"), lambda: ran.append("told"))
    assert ran == []
    _ = run()


def test_a_forked_child_starts_its_own() -> None:
    """Those of its parent are idle there, and do not exist in the child."""
    _ = run()

    def work(_tell: int) -> None:
        import os

        _ = run()
        os._exit(0)

    _, survived = in_a_fork(work)
    assert survived


def test_what_a_job_refers_to_is_let_go_when_it_is_done() -> None:
    """Not only when the thread has its next job."""
    import weakref

    class Large:
        pass

    large = Large()
    seen = weakref.ref(large)
    told = threading.Event()
    threads.start(lambda large=large: None, told.set)  # type: ignore[misc]
    del large
    assert told.wait(60)
    assert seen() is None


def test_an_interrupt_waits_for_the_batch(tmp_path: Path) -> None:
    """`KeyboardInterrupt` is raised when the thread is done: until then nobody may lead the next batch beside it."""
    gate = Gate()
    order: list[str] = []

    async def enqueue() -> None:
        async with await quick_spool(tmp_path / "spool", system_calls=gate) as spool, trio.open_nursery() as nursery:
            gate.arm("write")
            nursery.start_soon(interrupt)
            try:
                _ = await spool.enqueue(Mail.SEND, ANNE, b"x")
            finally:
                order.append("the enqueue ended")
                nursery.cancel_scope.cancel()

    @trio.lowlevel.enable_ki_protection  # so that it is raised in the main task, where that waits
    async def interrupt() -> None:
        await gate.reached()
        signal.raise_signal(signal.SIGINT)
        for _ in range(5):
            await trio.lowlevel.cancel_shielded_checkpoint()
        order.append("the thread was let go")
        gate.go()

    with pytest.RaisesGroup(KeyboardInterrupt):
        trio.run(enqueue)
    assert order == ["the thread was let go", "the enqueue ended"]
    assert trio.run(_names, tmp_path / "spool") == [], "it was withdrawn before its commit"


async def _names(path: Path) -> list[str]:
    async with await quick_spool(path) as spool:
        return await names_in(spool, Mail.SEND)
