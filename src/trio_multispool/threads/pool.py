"""Worker threads that wait a while for their next job. Giving one a job is quicker than using an event loop's pool.

Theory. A hop through an event loop's pool asks a limiter, copies a context, names the thread, and goes through several
layers on its way there and back. Batches have a limiter of their own, and run each piece of a user's code in that
piece's context, so all that is left to do for them is to wake a thread and to be woken by it.

Threads are started as they are needed, and end when nobody has needed them for some seconds. Like those of Trio and
AnyIO, they keep no process from exiting: a crash may interrupt what one of them is doing at any time too, and recovery
completes it. A forked child has none of them.
"""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_SECONDS: Final = 10.0
"""How long a thread waits for its next job before it ends; as Trio's do."""


class _Worker:
    """One thread, and the job that it is given."""

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[tuple[Callable[[], None], Callable[[], None]]] = queue.SimpleQueue()

    def start(self) -> None:
        """Start the thread; raises `RuntimeError` if there can be none."""
        threading.Thread(target=self._run, name="multispool worker", daemon=True).start()

    def give(self, work: Callable[[], None], tell: Callable[[], None]) -> None:
        """Have it do something, and tell."""
        self._given.put((work, tell))

    def _run(self) -> None:
        while True:
            try:
                work, tell = self._given.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                if _idle.drop(self):
                    return
                work, tell = self._given.get()  # taken just when it would have ended: it is about to be given its job
            try:
                work()
            finally:
                del work  # what it refers to must not live until the next job comes
                _idle.add(self)  # before it is told: the caller may have the next job for it at once
                tell()
            del tell


class _Idle:
    """The threads that have nothing to do; the one that was at work last is given work first: its caches are warm."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._workers: dict[_Worker, None] = {}

    def add(self, worker: _Worker) -> None:
        with self._mutex:
            self._workers[worker] = None

    def take(self) -> _Worker | None:
        with self._mutex:
            return self._workers.popitem()[0] if self._workers else None

    def drop(self, worker: _Worker) -> bool:
        """Forget a thread that is about to end; `False`: it has just been taken, and is being given a job."""
        with self._mutex:
            if worker not in self._workers:
                return False
            del self._workers[worker]
            return True

    def forget(self) -> None:
        """In a forked child, whose parent's threads they are."""
        self._mutex = threading.Lock()
        self._workers.clear()


_idle: Final = _Idle()
os.register_at_fork(after_in_child=_idle.forget)


def start(work: Callable[[], None], tell: Callable[[], None]) -> None:
    """Run `work`, which raises nothing, in a thread, and then call `tell` there.

    Raises `RuntimeError` if a thread is needed and none can be started; then nothing was run.
    """
    worker = _idle.take()
    if worker is None:
        worker = _Worker()
        worker.start()
    worker.give(work, tell)


def start_here(work: Callable[[], None], tell: Callable[[], None]) -> None:
    """Do as `start` does, in this thread, and return when it is done."""
    work()
    tell()
