"""Waiting for a queue to change, by looking again after a while.

A poll lists a directory, and a directory that once was long stays slow to list, so the wait grows with what the last
listing took. An idle reader looks again after a few milliseconds, then after twice as long, up to its poll interval.
"""

from __future__ import annotations

import collections
from typing import Final

import anyio

FIRST_WAIT: Final = 0.005
"""The first wait after something was there, in seconds."""

LISTING_SHARE: Final = 1000
"""A wait is at least so many times what a listing takes: polling costs at most a thousandth of a CPU."""

LONGEST_WAIT: Final = 10.0
"""How far the share of listing may stretch a wait, in seconds: latency matters more than the last per mille."""

LISTINGS_REMEMBERED: Final = 3
"""The quickest of so many listings counts: one that was slow because the disk or the machine was busy says nothing."""


class Polling:
    """The waits of one idle reader."""

    def __init__(self, interval: float) -> None:
        """Wait at most `interval` seconds at a time, longer only where listing is slow."""
        self._interval = interval
        self._next = min(FIRST_WAIT, interval)
        self._listings: collections.deque[float] = collections.deque(maxlen=LISTINGS_REMEMBERED)

    def next_wait(self, listing_took: float) -> float:
        """Return how long to wait now, in seconds, after a listing that took so many; the next wait is longer."""
        self._listings.append(listing_took)
        stretched = min(min(self._listings) * LISTING_SHARE, LONGEST_WAIT)
        wait = max(self._next, stretched)
        self._next = min(self._next * 2, self._interval)
        return wait

    async def wait(self, listing_took: float, stopping: anyio.Event) -> None:
        """Wait until it is time to look again, or until `stopping` is set."""
        with anyio.move_on_after(self.next_wait(listing_took)):
            await stopping.wait()
