"""Calling into the event loop from anywhere: another thread, a signal handler, or the loop itself."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Callable

import msgspec


class Loop(msgspec.Struct, frozen=True):
    """The event loop that is running, for use from elsewhere."""

    call: Callable[[Callable[[], object]], None]
    """Have the loop call something soon; may itself be called from anywhere.

    An AnyIO event that is set from a raw signal handler would not wake asyncio, and one set from another thread breaks
    Trio. Once the loop has ended there is nobody to wake, and the call does nothing.
    """
    time: Callable[[], float]
    """The loop's clock, to be read in what it calls: `anyio.current_time` asks for a task, and there is none."""


def running_loop() -> Loop:
    """Return the loop that runs this."""
    trio = sys.modules.get("trio")  # not imported where it cannot be running
    if trio is not None and trio.lowlevel.in_trio_run():
        token = trio.lowlevel.current_trio_token()

        def call_on_trio(function: Callable[[], object]) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(function)

        return Loop(call_on_trio, trio.current_time)

    import asyncio  # noqa: PLC0415  # only where asyncio runs

    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()  # in that of another thread, AnyIO would not know where it is

    def call_on_asyncio(function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            _ = loop.call_soon_threadsafe(function, context=context)

    return Loop(call_on_asyncio, loop.time)
