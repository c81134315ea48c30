"""Gates in front of, or behind, system calls: how a test stops operations at known places, without a clock."""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from helpers.syscalls import HookedCalls, words_of
from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


async def until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    while not true():
        await breathe()


class Hold:
    """One call that waits in its thread until it is let go."""

    def __init__(self) -> None:
        """Begin with nobody there."""
        self._there, self._open = threading.Event(), threading.Event()

    def wait(self) -> None:
        """Be held; in the thread."""
        self._there.set()
        if not self._open.wait(timeout=60):
            raise AssertionError("nobody let the call go")

    def go(self) -> None:
        """Let it go."""
        self._open.set()

    @property
    def there(self) -> bool:
        """Whether it is held, or was."""
        return self._there.is_set()

    async def reached(self) -> None:
        """Wait until it is held."""
        await anyio.to_thread.run_sync(self._there.wait, limiter=anyio.CapacityLimiter(1))


@contextlib.contextmanager
def let_go_at_last(*holds: Hold) -> Iterator[None]:
    """Let all of them go at the end of the block: a test that fails must not wait for its own threads."""
    try:
        yield
    finally:
        for hold in holds:
            hold.go()


class Gates(HookedCalls):
    """System calls that work as they are, of which any number can be held at the same time."""

    def __init__(self) -> None:
        """Begin with none."""
        self._holds: list[tuple[str, str, bool, Hold]] = []

    def hold(self, call: str, on: str = "", *, after: bool = False) -> Hold:
        """Hold the next call whose words (see `helpers.syscalls.words_of`) end with `on`, before or after it.

        Of several that fit, the first holds the first call.
        """
        hold = Hold()
        self._holds.append((call, on, after, hold))
        return hold

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Hold it, if it is to be."""
        for each in self._holds:
            wanted, on, after, hold = each
            if wanted == call and (not on or words_of(call, arguments).endswith(on)):
                self._holds.remove(each)
                break
        else:
            return perform()
        if not after:
            hold.wait()
            return perform()
        try:
            return perform()
        finally:
            hold.wait()
