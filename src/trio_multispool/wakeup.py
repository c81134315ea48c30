"""Calling into the event loop from anywhere: another thread, a signal handler, or the loop itself."""

from __future__ import annotations

import contextvars
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def loop_caller() -> Callable[[Callable[[], object]], None]:
    """Return a function that has the running event loop call something soon, and may itself be called from anywhere.

    An AnyIO event that is set from a raw signal handler would not wake asyncio, and one set from another thread breaks
    Trio. Once the loop has ended there is nobody to wake, and the call does nothing.
    """
    trio = sys.modules.get("trio")  # not imported where it cannot be running
    if trio is not None and trio.lowlevel.in_trio_run():
        token = trio.lowlevel.current_trio_token()

        def call_on_trio(function: Callable[[], object]) -> None:
            try:
                token.run_sync_soon(function)
            except trio.RunFinishedError:
                return

        return call_on_trio

    import asyncio  # noqa: PLC0415  # only where asyncio runs

    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()  # in that of another thread, AnyIO would not know where it is

    def call_on_asyncio(function: Callable[[], object]) -> None:
        if not loop.is_closed():
            _ = loop.call_soon_threadsafe(function, context=context)

    return call_on_asyncio
