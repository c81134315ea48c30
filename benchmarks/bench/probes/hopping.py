"""What a hop to a thread and back takes that does nothing there: AnyIO's own, Trio's own, and this library's."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import trio

from bench.probes import run
from trio_multispool.threads.offload import Offload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def measure(_folder: str, *, hops: int) -> dict[str, float]:
    """Take the median of so many, on Trio, of each in turn."""
    return trio.run(_measure, hops)


async def _measure(hops: int) -> dict[str, float]:
    offload = Offload(anyio.CapacityLimiter(1))
    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "AnyIO": lambda: anyio.to_thread.run_sync(_nothing, None),
        "Trio": lambda: trio.to_thread.run_sync(_nothing, None),
        "trio-multispool": lambda: offload.run("a hop", _nothing),
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(hops):
        for way, hop_there in ways.items():
            began = time.perf_counter()
            await hop_there()
            took[way].append(time.perf_counter() - began)
    return {way: statistics.median(each) * 1e6 for way, each in took.items()}


def _nothing(_argument: object) -> None:
    pass


if __name__ == "__main__":
    run(measure)
