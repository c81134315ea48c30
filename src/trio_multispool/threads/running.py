"""The operations that are under way on something: in one event loop, and until it is closed."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Final, cast

import anyio

from trio_multispool.threads import pool
from trio_multispool.threads.grace import Grace
from trio_multispool.threads.loop import Loop, running_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    import trio


class Running:
    """Counts the operations that are under way. It refuses those that come after the end, or in another event loop.

    The event loop is that in which this was made, or else the first in which something begins. When that has ended,
    another of the same library may take over: nothing waits in it any more.
    """

    def __init__(
        self,
        what: str = "this",
        *,
        let_go: Callable[[], object] = lambda: None,
        at_each_end: Callable[[], None] | None = None,
        in_threads: bool = True,
    ) -> None:
        """Begin with none. `what` is for messages. `let_go` is called at the end, when none is under way any more.

        Without `in_threads`, hops run in the event loop's own thread: for a store that does not block.
        """
        self.what: Final = what
        self.closed: bool = False
        """Whether `close` was called."""
        self._let_go = let_go
        self._at_each_end = at_each_end
        self._mutex = threading.Lock()
        self._count = 0
        self.start: Callable[[Callable[[], None], Callable[[], None]], None]
        """Does something in a thread, and then calls something else there; see `pool.start`."""
        self.start = pool.start if in_threads else pool.start_here
        self.grace: Grace = Grace()
        """The hops of its operations."""
        self._token: object | None = None
        self.loop: Loop
        """The event loop; once something has begun."""
        self._here = _token_here  # or what is quicker
        here = _token_here()
        if here is not None:
            self._settle(here)

    def begin(self) -> Loop:
        """Count one more, until `end`, and return the event loop.

        Raises `anyio.ClosedResourceError` after `close`, and `RuntimeError` in another event loop.
        """
        try:
            here = self._here()
        except RuntimeError:  # that library runs nothing here
            here = _token_here()
        if here is not self._token:
            self._move(here)
        with self._mutex:
            if not self.closed:
                self._count += 1
                return self.loop
        raise self.closed_error()

    def closed_error(self) -> anyio.ClosedResourceError:
        """Return what to raise after `close`."""
        return anyio.ClosedResourceError(f"{self.what} has been closed")

    def end(self) -> None:
        """Count one less."""
        if self._at_each_end is not None:
            self._at_each_end()
        with self._mutex:
            self._count -= 1
            last = self.closed and not self._count
        if last:
            _ = self._let_go()

    def close(self) -> None:
        """Let none begin any more. Idempotent; in any thread."""
        with self._mutex:
            self.closed = True
            idle = not self._count
        if idle:
            _ = self._let_go()

    def _move(self, here: object | None) -> None:
        if here is None or (self._token is not None and not _may_follow(here, self._token)):
            message = (
                f"{self.what} is used in another event loop than the one that it was opened in; "
                "open it there too, by `Spool.load`: any number of them may share the directory"
            )
            raise RuntimeError(message)
        self._settle(here)

    def _settle(self, here: object) -> None:
        self._token, self.loop = here, running_loop()
        self._here = self.loop.token


def _token_here() -> object | None:
    """Return what tells the event loop that runs this from others; `None` if none runs."""
    try:
        return running_loop().token()
    except RuntimeError:  # none runs
        return None


def _may_follow(here: object, before: object) -> bool:
    """Tell whether a loop has ended, and the one that runs here is of the same library."""
    on_trio = hasattr(before, "run_sync_soon")
    if hasattr(here, "run_sync_soon") != on_trio:
        return False
    if not on_trio:
        return cast("asyncio.AbstractEventLoop", before).is_closed()
    try:
        cast("trio.lowlevel.TrioToken", before).run_sync_soon(lambda: None)
    except sys.modules["trio"].RunFinishedError:
        return True
    return False
