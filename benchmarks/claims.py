"""Claims per second, by 1, 4 and 16 consumers: handlers of one pool, and processes.

    python benchmarks/claims.py [--directory DIRECTORY] [--durability power|process] [--backend trio|asyncio]

A consumer of the first table is one of the handlers that `reader.iter_available(…, concurrency=…)` runs at a time; one
of the second table is a process with a reader and one handler. All consumers begin at once, with their readers open,
and work off a queue in one of these ways:

- released, removed: each handler does nothing, and returns `Release()` or `Remove()`. The pool checks entries out for
  several handlers together, and settles together what they return together. A release needs no sync, so it is nearest
  to what a check-out alone costs.
- prefetch: likewise, and the pool checks so many entries out ahead.
- kept: no handlers, but so many tasks that draw from one `reader.available()`, which checks out one entry at a time,
  and keep all entries in hand until nobody finds one. Then all go back, which is not measured.

The clock runs until the last consumer has found the queue empty. The rounds of 1, 4 and 16 consumers take turns, so
that what disturbs the machine for a while disturbs all of them. One round of each before is not counted, and the
processes live through all rounds, so their start is not measured. Shown are the median of the rounds, the slowest and
the fastest, and how often as fast as 1 consumer in the same turn: the median of that.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import anyio
from common import DATA, NOTES, Note, Queue, described, machine

from trio_multispool import DataFile, Durability, QueueReader, Release, Remove, Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

CONSUMERS = (1, 4, 16)

PATIENCE = 120.0
"""How long processes wait for each other, in seconds, before they give up because one of them has failed."""


class Way(NamedTuple):
    """How a queue is worked off."""

    title: str
    then: Literal["keep", "release", "remove"]
    prefetch: int = 0


KEPT = Way("kept, one by one", "keep")
REMOVED = Way("removed", "remove")
OF_A_POOL = (
    KEPT,
    Way("released", "release"),
    Way("released, prefetch=16", "release", prefetch=16),
    REMOVED,
    Way("removed, prefetch=16", "remove", prefetch=16),
)
OF_PROCESSES = (KEPT, REMOVED)  # what one process releases, others would check out again


class Order(NamedTuple):
    """What some consumers are to do at the same time."""

    path: str
    durability: Durability
    backend: str
    consumers: int
    way: Way


class Part(NamedTuple):
    """What one process did of it, and from when to when, on the system's monotonic clock."""

    claims: int
    began: float
    ended: float


Team: TypeAlias = "Callable[[Order], list[Part]]"


async def fill(path: str, durability: Durability, entries: int) -> None:
    """Put so many entries into a spool, which is made if it is missing."""
    async with (await Spool.create(path, NOTES, durability=durability)).unwrap() as spool:
        for answer in await spool.enqueue_many(Queue.WORK, [(Note(number), DATA) for number in range(entries)]):
            _ = answer.unwrap()


async def claim(reader: QueueReader[Queue, Note, bytes], tasks: int, way: Way) -> int:
    """Check out, in so many tasks, what the queue has; return how many entries that were."""
    claims = 0

    async def handle(_note: Note, _data: DataFile[bytes]) -> Release | Remove:
        nonlocal claims
        claims += 1
        return Release() if way.then == "release" else Remove()

    async def keep() -> None:
        nonlocal claims
        async for _job in jobs:  # stays in hand until the reader's block ends
            claims += 1

    if way.then == "keep":
        jobs = reader.available()
        async with anyio.create_task_group() as keeping:
            for _ in range(tasks):
                _ = keeping.start_soon(keep)
    else:
        (await reader.iter_available(handle, concurrency=tasks, prefetch=way.prefetch)).unwrap()
    return claims


async def take_part(order: Order, tasks: int, meet: Callable[[], object]) -> Part:
    """Do what this process has to do; `meet` waits for the others."""
    async with (
        (await Spool.load(order.path, NOTES, durability=order.durability)).unwrap() as spool,
        spool.reader(Queue.WORK) as reader,
    ):
        meet()
        began = time.monotonic()
        claims = await claim(reader, tasks, order.way)
        ended = time.monotonic()
        meet()  # what goes back now, others would claim again
    return Part(claims, began, ended)


def in_one_pool(order: Order) -> list[Part]:
    """Let tasks of this process be the consumers."""
    return [anyio.run(take_part, order, order.consumers, lambda: None, backend=order.backend)]


class Processes:
    """Worker processes, as many as are ever needed; the first of them are the consumers."""

    def __init__(self) -> None:
        """Start them."""
        context = multiprocessing.get_context("spawn")
        self._barriers = {consumers: context.Barrier(consumers) for consumers in CONSUMERS}

        def start() -> Connection:
            ours, theirs = context.Pipe()
            context.Process(target=follow, args=(theirs, self._barriers), daemon=True).start()
            theirs.close()
            return ours

        self._connections = [start() for _ in range(max(CONSUMERS))]

    def __call__(self, order: Order) -> list[Part]:
        """Let processes be the consumers."""
        connections = self._connections[: order.consumers]
        for connection in connections:
            connection.send(order)
        return [connection.recv() for connection in connections]


def follow(orders: Connection, barriers: dict[int, Barrier]) -> None:
    """Be one of the processes."""
    while True:
        try:
            order = orders.recv()
        except EOFError:
            return

        def meet() -> int:
            return barriers[order.consumers].wait(PATIENCE)  # noqa: B023  # called within this turn

        orders.send(anyio.run(take_part, order, 1, meet, backend=order.backend))


def measure(team: Team, ways: Iterable[Way], consumers: int, options: argparse.Namespace) -> dict[Way, float]:
    """Run one round; return how many entries per second were claimed in each way."""
    durability = Durability(options.durability)
    rates: dict[Way, float] = {}
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="multispool-benchmark-") as folder:
        path, full = f"{folder}/spool", False
        for way in ways:
            if not full:
                anyio.run(fill, path, durability, options.entries, backend=options.backend)
            parts = team(Order(path, durability, options.backend, consumers, way))
            claims = sum(part.claims for part in parts)
            if claims != options.entries:
                raise RuntimeError(f"{claims} of {options.entries} entries were claimed")
            rates[way] = claims / (max(part.ended for part in parts) - min(part.began for part in parts))
            full = way.then != "remove"
    return rates


def table(title: str, team: Team, ways: Sequence[Way], options: argparse.Namespace) -> None:
    """Measure with one kind of consumers, and print a table."""
    turns = [
        {consumers: measure(team, ways, consumers, options) for consumers in CONSUMERS}
        for _ in range(options.rounds + 1)
    ][1:]
    print(f"\n{'entries per second':24}{title:>9}  {'':27}  x of 1")
    for way in ways:
        for consumers in CONSUMERS:
            rates = [turn[consumers][way] for turn in turns]
            ratio = statistics.median(turn[consumers][way] / turn[1][way] for turn in turns)
            print(f"{way.title:24}{consumers:9}  {described(rates):27}  {ratio:6.2f}", flush=True)


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description="Measure how many entries per second are claimed.")
    _ = parser.add_argument("--directory", default=tempfile.gettempdir(), help="make the spools in here")
    _ = parser.add_argument("--durability", choices=[level.value for level in Durability], default="power")
    _ = parser.add_argument("--backend", choices=["trio", "asyncio"], default="trio")
    _ = parser.add_argument("--rounds", type=int, default=5, help="rounds that count, for each row (5)")
    _ = parser.add_argument("--entries", type=int, default=400, help="a round; each in hand is an open file (400)")
    options = parser.parse_args()
    print(
        f"{machine(options.directory)}, {options.backend}, durability {options.durability}, "
        f"{len(DATA)} bytes of data, {options.rounds} rounds of {options.entries} entries"
    )
    table("handlers", in_one_pool, OF_A_POOL, options)
    table("processes", Processes(), OF_PROCESSES, options)


if __name__ == "__main__":
    main()
