"""What instrumentation costs: CPU time of an entry that goes through a spool, without hooks and with several kinds.

    python benchmarks/hooks.py [--directory DIRECTORY] [--entries N] [--rounds N]

Each round enqueues a number of entries, one after the other, and has a reader remove them, at durability `process`: so
that the disk, which would hide the cost of anything else, has no part in it. A directory on tmpfs shows the most. What
is shown is the CPU time of all threads, in microseconds an entry, which other programs disturb less than the time on
the clock. The kinds take turns, and `x of none` is a kind's time beside that of no hooks in the same turn: the median.

- none: no `instrumentation` is given.
- base: the base class, whose hooks do nothing.
- counting: every hook adds one to a counter.
- carrying: the base class, and a trace context travels with each entry.
- prometheus, opentelemetry: the integrations (OpenTelemetry's with an SDK that drops its spans), if they are installed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from common import DATA, NOTES, Note, Queue, described, machine

from trio_multispool import DataFile, Durability, Remove, Spool
from trio_multispool.instrumentation import Enqueueing, Instrumentation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

Make: TypeAlias = "Callable[[], Instrumentation | None]"

CARRIER = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}


class Counting(Instrumentation):
    """Adds one, whatever it hears."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.counts: collections.Counter[str] = collections.Counter()
        for hook in ("on_enqueue", "on_checkout", "on_settle", "on_wait"):
            setattr(self, hook, functools.partial(self._count, hook))

    def _count(self, hook: str, _what: object) -> None:
        self.counts[hook] += 1


class Carrying(Instrumentation):
    """Sends a trace context along."""

    carries = True

    def enqueueing(self, _enqueueing: Enqueueing) -> AbstractContextManager[Mapping[str, str]]:
        """Return it."""
        return contextlib.nullcontext(CARRIER)


def kinds() -> dict[str, Make]:
    """Return all that can be had, by name."""
    found: dict[str, Make] = {
        "none": lambda: None,
        "base": Instrumentation,
        "counting": Counting,
        "carrying": Carrying,
    }
    with contextlib.suppress(ImportError):
        from prometheus_client import CollectorRegistry  # noqa: PLC0415  # may be missing

        from trio_multispool.integrations.prometheus import Prometheus  # noqa: PLC0415

        found["prometheus"] = lambda: Prometheus(CollectorRegistry())
    with contextlib.suppress(ImportError):
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415  # may be missing
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

        from trio_multispool.integrations.opentelemetry import OpenTelemetry  # noqa: PLC0415

        tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider(shutdown_on_exit=False)
        found["opentelemetry"] = lambda: OpenTelemetry(tracer_provider=tracers, meter_provider=meters)
    return found


async def remove(_note: Note, _data: DataFile[bytes]) -> Remove:
    """Be a handler that takes no time."""
    return Remove()


async def measure(path: str, make: Make, entries: int) -> tuple[float, float]:
    """Run one round; return how long enqueueing an entry took, and checking it out and removing it, in microseconds."""
    options: dict[str, Any] = {}
    instrumentation = make()
    if instrumentation is not None:
        options["instrumentation"] = instrumentation
    async with (await Spool.create(path, NOTES, durability=Durability.PROCESS, **options)).unwrap() as spool:
        began = time.process_time()
        for number in range(entries):
            _ = (await spool.enqueue(Queue.WORK, Note(number), DATA)).unwrap()
        enqueued = time.process_time()
        async with spool.reader(Queue.WORK) as reader:
            (await reader.iter_available(remove)).unwrap()
        removed = time.process_time()
    return (enqueued - began) / entries * 1e6, (removed - enqueued) / entries * 1e6


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure what instrumentation costs.")
    _ = parser.add_argument("--directory", default=tempfile.gettempdir(), help="make the spools in here")
    _ = parser.add_argument("--entries", type=int, default=500, help="a round (500)")
    _ = parser.add_argument("--rounds", type=int, default=9, help="rounds that count, for each row (9)")
    _ = parser.add_argument("--backend", choices=["trio", "asyncio"], default="trio")
    options = parser.parse_args()
    measured = kinds()
    rounds: list[dict[str, tuple[float, float]]] = []
    for _ in range(options.rounds + 1):  # the first is not counted
        turn: dict[str, tuple[float, float]] = {}
        for kind, make in measured.items():
            with tempfile.TemporaryDirectory(dir=options.directory, prefix="multispool-benchmark-") as folder:
                turn[kind] = anyio.run(measure, f"{folder}/spool", make, options.entries, backend=options.backend)
        rounds.append(turn)
    print(f"{machine(options.directory)}, {options.backend}, {options.rounds} rounds of {options.entries} entries")
    print(f"\n{'hooks':14} {'enqueued, in µs':32} x of none  {'and removed, in µs':32} x of none")
    for kind in measured:
        columns: list[str] = []
        for column in (0, 1):
            times = [turn[kind][column] for turn in rounds[1:]]
            ratios = [turn[kind][column] / turn["none"][column] for turn in rounds[1:]]
            columns.append(f"{described(times):32} {statistics.median(ratios):9.3f}")
        print(f"{kind:14} {'  '.join(columns)}", flush=True)


if __name__ == "__main__":
    main()
