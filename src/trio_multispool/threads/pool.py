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
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_SECONDS: Final = 10.0
"""How long a thread waits for its next job before it ends; as Trio's do."""


_Given: TypeAlias = "queue.SimpleQueue[tuple[Callable[[], None], Callable[[], None]]]"
"""Where a thread gets its jobs from: what it is to do, and what it is to call then."""

_idle: Final[dict[_Given, bool]] = {}
"""The threads that have nothing to do; the one that was at work last is given work first: its caches are warm.

They need no lock: `popitem`, `pop` and setting an item are atomic, because a `SimpleQueue` is hashed by its identity.
"""
os.register_at_fork(after_in_child=_idle.clear)


def _run(given: _Given) -> None:
    """Do one job after the other, in a thread of its own."""
    while True:
        try:
            work, tell = given.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            if _idle.pop(given, False):
                return
            work, tell = given.get()  # taken just when it would have ended: it is about to be given its job
        try:
            work()
        finally:
            del work  # what it refers to must not live until the next job comes
            _idle[given] = True  # before it is told: the caller may have the next job for it at once
            tell()
        del tell


def start(work: Callable[[], None], tell: Callable[[], None]) -> None:
    """Run `work`, which raises nothing, in a thread, and then call `tell` there.

    Raises `RuntimeError` if a thread is needed and none can be started; then nothing was run.
    """
    given: _Given | None
    try:
        given, _ = _idle.popitem()
    except KeyError:
        given = None
    if given is None:
        given = queue.SimpleQueue()
        threading.Thread(target=_run, args=(given,), name="multispool worker", daemon=True).start()
    given.put((work, tell))


def start_here(work: Callable[[], None], tell: Callable[[], None]) -> None:
    """Do as `start` does, in this thread, and return when it is done."""
    work()
    tell()
