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
        case "jumping":
            with asyncio.Runner(loop_factory=JumpingLoop) as runner:
                return runner.run(program)
        case _:
            return asyncio.run(program)
