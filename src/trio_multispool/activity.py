"""Waiting for a queue to change, by looking again after a while.

A poll lists a directory, and a directory that once was long stays slow to list, so the wait grows with what the last
listing took. An idle reader looks again after a few milliseconds, then after twice as long, up to its poll interval.
"""

from __future__ import annotations

from typing import Final

import anyio

FIRST_WAIT: Final = 0.005
"""The first wait after something was there, in seconds."""

LISTING_SHARE: Final = 1000
"""A wait is at least so many times what the last listing took: polling costs at most a thousandth of a CPU."""


class Polling:
    """The waits of one idle reader."""

    def __init__(self, interval: float) -> None:
        """Wait at most `interval` seconds at a time, longer only where listing is slow."""
        self._interval = interval
        self._next = min(FIRST_WAIT, interval)

    def reset(self) -> None:
        """Something was there: look again soon."""
        self._next = min(FIRST_WAIT, self._interval)

    def next_wait(self, listing_took: float) -> float:
        """Return how long to wait now, in seconds, after a listing that took so many; the next wait is longer."""
        wait = max(self._next, listing_took * LISTING_SHARE)
        self._next = min(self._next * 2, self._interval)
        return wait

    async def wait(self, listing_took: float, stopping: anyio.Event) -> None:
        """Wait until it is time to look again, or until `stopping` is set."""
        with anyio.move_on_after(self.next_wait(listing_took)):
            await stopping.wait()
