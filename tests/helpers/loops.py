"""Programs on asyncio that AnyIO does not run: by `asyncio.run` and by `uvloop.run`, in a test that is not async."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

LOOPS = ["asyncio", *(["uvloop"] if sys.implementation.name == "cpython" and sys.platform != "win32" else [])]
"""The event loops that there are."""


class JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, with a clock that can be put forward by what runs in it."""

    ahead = 0.0

    def time(self) -> float:
        """Return what the clock shows."""
        return super().time() + self.ahead


class CountingLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, which counts its turns: one turn runs what is ready, or waits until something is."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self._left = 0
        self._act: Callable[[], object] | None = None
        self._or_if: Callable[[], bool] = bool
        self.rested = False
        """Whether what was to be done was done because there was nothing else to do."""

    def before_turn(self, number: int, act: Callable[[], object], *, or_if: Callable[[], bool] = bool) -> None:
        """Do something once, right before a turn (the next one is the first); sooner if that is so with nothing ready.

        What is done must make something ready.
        """
        self._left, self._act, self._or_if = number, act, or_if

    def _run_once(self) -> None:  # of asyncio's `BaseEventLoop`, which calls it in a loop, as `_ready` is
        if self._act is not None:
            self._left -= 1
            self.rested = self._left > 0 and not self._ready and self._or_if()  # type: ignore[attr-defined]
            if self._left == 0 or self.rested:
                act, self._act = self._act, None
                _ = act()
        super()._run_once()  # type: ignore[misc]


def run_plainly(main: Callable[[], Coroutine[Any, Any, T]], loop: str) -> T:
    """Run a program to its end; what is raised in a callback, which asyncio only logs, ends it and is raised."""
    raised: list[BaseException] = []

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None

        def end(_loop: Any, context: dict[str, Any]) -> None:
            raised.append(context.get("exception") or AssertionError(context["message"]))
            task.cancel()

        asyncio.get_running_loop().set_exception_handler(end)
        return await main()

    try:
        return _run(watched(), loop)
    finally:
        if raised:
            raise raised[0]


def _run(program: Coroutine[Any, Any, T], loop: str) -> T:
    match loop:
        case "uvloop":
            import uvloop

            return uvloop.run(program)
        case "jumping" | "counting":
            with asyncio.Runner(loop_factory=JumpingLoop if loop == "jumping" else CountingLoop) as runner:
                return runner.run(program)
        case _:
            return asyncio.run(program)
