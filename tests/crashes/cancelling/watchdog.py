"""A watchdog: where a program hangs, it tells where all its tasks and threads stand, and ends it."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HUNG: Final = 3
"""The status of a process that hung."""


class Watchdog:
    """Ends the process unless it is fed often enough."""

    def __init__(self, patience: float) -> None:
        """Watch from now on, in a thread; `patience` is in seconds."""
        self.about: str = "nothing"
        """What is being done."""
        self.tasks: Callable[[], Iterator[tuple[str, Any]]] = lambda: iter(())
        """Returns the names and coroutines of all tasks."""
        self._patience = patience
        self._fed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def feed(self) -> None:
        """Say that the program goes on."""
        self._fed.set()

    def _watch(self) -> None:
        while self._fed.wait(self._patience):
            self._fed.clear()
        try:
            print(f"HUNG: {self.about}", file=sys.stderr)
            for name, coroutine in self.tasks():
                print(f"\nTask {name}:\n{format_stack(coroutine)}", file=sys.stderr)
            sys.stderr.flush()
            faulthandler.dump_traceback(all_threads=True)
        finally:
            os._exit(HUNG)


def format_stack(coroutine: Any) -> str:
    """Return where a coroutine stands, in lines."""
    return "".join(traceback.StackSummary.from_list(list(stack_of(coroutine))).format())


def stack_of(coroutine: Any) -> Iterator[traceback.FrameSummary]:
    """Yield where a coroutine stands, and what it awaits, from the outermost on."""
    while coroutine is not None:
        frame = next(
            (found for kind in ("cr", "gi", "ag") if (found := getattr(coroutine, f"{kind}_frame", None))), None
        )
        if frame is None:
            return
        yield traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        awaits = ("cr_await", "gi_yieldfrom", "ag_await")
        coroutine = next((found for kind in awaits if (found := getattr(coroutine, kind, None)) is not None), None)


def trio_tasks(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tasks of Trio that a task is the ancestor of, and itself."""
    yield root.name, root.coro
    for nursery in list(root.child_nurseries):
        for task in list(nursery.child_tasks):
            yield from trio_tasks(task)


def asyncio_tasks(loop: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tasks of an event loop of asyncio."""
    import asyncio

    for task in asyncio.all_tasks(loop):
        yield task.get_name(), task.get_coro()
