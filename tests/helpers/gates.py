"""A gate in front of, or behind, one system call: how a test stops an operation at a known place, without a clock."""

from __future__ import annotations

import functools
import threading
from typing import Any

import anyio.to_thread

from trio_multispool.storage.syscalls import SystemCalls


class Gate(SystemCalls):
    """System calls that work as they are until the gate is armed; then one of them waits in its thread."""

    def __init__(self) -> None:
        self._armed: str | None = None
        self._after = False
        self._reached = threading.Event()
        self._open = threading.Event()

    def arm(self, method: str, *, after: bool = False) -> None:
        """Hold the next call of a method, before it is made or after."""
        self._armed, self._after = method, after

    def go(self) -> None:
        """Let the held call go on."""
        self._open.set()

    async def reached(self) -> None:
        """Wait until the call is held."""
        await anyio.to_thread.run_sync(self._reached.wait, limiter=anyio.CapacityLimiter(1))

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name != super().__getattribute__("_armed"):
            return found

        @functools.wraps(found)
        def held(*arguments: Any) -> Any:
            self._armed = None
            if not self._after:
                self._hold()
                return found(*arguments)
            try:
                return found(*arguments)
            finally:
                self._hold()

        return held

    def _hold(self) -> None:
        self._reached.set()
        if not self._open.wait(timeout=60):
            raise AssertionError("nobody opened the gate")


async def breathe() -> None:
    """Let other tasks and threads run, for use in a loop that waits for a sign.

    A hop to a thread and back: a loop of bare checkpoints would keep the interpreter's lock from the threads that
    it waits for.
    """
    await anyio.to_thread.run_sync(threading.Event().is_set, limiter=anyio.CapacityLimiter(1))
