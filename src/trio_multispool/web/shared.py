"""`Shared`: what takes time to find out is found out once for all who ask, and not more often than it may be.

Nothing runs in the background. The first who asks when it is time finds it out; the others wait for that. So nothing
has to be started or stopped, and nothing is done while nobody looks.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Generic, NamedTuple, final

import anyio
import anyio.lowlevel

from trio_multispool.clock import stopwatch
from trio_multispool.looks.state import pause_after
from trio_multispool.model.types import T

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator


class Seen(NamedTuple, Generic[T]):
    """What was found out, and its number: it grows with each time."""

    number: int
    value: T


class Body(NamedTuple):
    """What a page shows that may change while somebody looks at it."""

    html: str
    title: str
    status: int = 200


@final
class Shared(Generic[T]):
    """Something that several viewers want to know, and to know again when it may have changed."""

    def __init__(self, find: Callable[[], Awaitable[T]], every: float, share: Callable[[], float]) -> None:
        """Take what finds it out, how many seconds to leave between two times at least, and which share of the time.

        What takes long to find out is found out less often: so that it takes no more than `share()` of the time.
        """
        self.viewers: int = 0
        """How many watch it now."""
        self._find = find
        self._every = every
        self._share = share
        self._elapsed = stopwatch()
        self._next = 0.0
        self._seen: Seen[T] | None = None
        self._finding: anyio.Event | None = None

    @contextlib.contextmanager
    def watched(self) -> Generator[None]:
        """Count somebody who watches it while the block runs."""
        self.viewers += 1
        try:
            yield
        finally:
            self.viewers -= 1

    def forget(self) -> None:
        """Find it out anew the next time that somebody asks: it has changed."""
        self._next = 0.0

    async def get(self) -> Seen[T]:
        """Return what is known, if that is recent; else find it out, together with all who ask meanwhile."""
        while self._seen is None or self._elapsed() >= self._next:
            if self._finding is None:
                return await self._find_out()
            await self._finding.wait()
        return self._seen

    async def after(self, number: int) -> Seen[T]:
        """Return what is found out next, after what has this number. Wait until it is time."""
        while True:
            await anyio.lowlevel.checkpoint()
            seen = await self.get()
            if seen.number > number:
                return seen
            await anyio.sleep(max(0.0, self._next - self._elapsed()))

    async def _find_out(self) -> Seen[T]:
        self._finding, began = anyio.Event(), self._elapsed()
        try:
            value = await self._to_the_end()
            ended = self._elapsed()
            self._next = ended + pause_after(ended - began, self._every, self._share())
            seen = Seen(1 if self._seen is None else self._seen.number + 1, value)
            self._seen = seen
            return seen
        finally:
            self._finding.set()
            self._finding = None

    async def _to_the_end(self) -> T:
        """Find it out for all, though the viewer that began it may have gone."""
        with anyio.CancelScope(shield=True):
            return await self._find()
        raise AssertionError("a shield is never cancelled")
