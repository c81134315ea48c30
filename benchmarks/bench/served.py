"""What is measured on a PostgreSQL server: this library, and the peers that are queues in such a server.

Level is always `power`: the server syncs each commit that a producer or a consumer waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from bench.crew import rates
from bench.probes import probed
from bench.servers import settled
from bench.setting import OWN, Measure, Setting, label_of
from bench.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.work import Phase

PLACES = ("tmpfs", "ext4")
POOL = "pgqueuer, 64 tasks"
CONSUMERS = (1, 2, 4, 8, 16)


class Served:
    """The cases, by name."""

    def __init__(self, scaled: Callable[[int], int]) -> None:
        """Take so much of each."""
        self._scaled = scaled
        self.all: dict[str, Callable[[], Iterator[Setting]]] = {
            "postgresql-entries": self.entries,
            "postgresql-consumers": self.consumers,
            "postgresql-backlog": self.backlog,
            "postgresql-waking": self.waking,
            "postgresql-deaths": self.deaths,
        }

    def _turn(self, work: Work, *phases: tuple[Phase, int], leaving_out: tuple[Phase, ...] = ()) -> Measure:
        """Do phases, each with its number of entries; before each, the server has nothing left to do."""
        counts = [(phase, max(self._scaled(count) // work.workers * work.workers, 1)) for phase, count in phases]
        enqueued = sum(count for phase, count in counts if phase != "work_off")
        counts = [(phase, enqueued if phase == "work_off" else count) for phase, count in counts]

        def measure(url: str) -> dict[str, float]:
            found = rates(msgspec.structs.replace(work, folder=url), counts, before=settled)
            each = zip(counts, found, strict=True)
            return {phase: rate for (phase, _), rate in each if phase not in leaving_out}

        return measure

    def entries(self) -> Iterator[Setting]:
        """Enqueue one by one, by many tasks, and a hundred together; check out, load the data and remove."""
        one_by_one: dict[str, Any] = {"folder": "", "tasks": 1}
        by_64: dict[str, Any] = {"folder": "", "tasks": 64}
        everything = (("enqueue", 600), ("enqueue_many", 6400), ("work_off", 0))
        trials = {
            label_of(OWN, 1): self._turn(Work(system=OWN, **one_by_one), ("enqueue", 600), ("enqueue_many", 6400)),
            "pgqueuer": self._turn(Work(system="pgqueuer", **one_by_one), *everything),
            label_of(OWN, 64): self._turn(Work(system=OWN, **by_64), ("enqueue", 6400), ("work_off", 0)),
            "pgqueuer on psycopg": self._turn(Work(system="pgqueuer on psycopg", **one_by_one), *everything),
            POOL: self._turn(Work(system="pgqueuer", **by_64), ("enqueue", 3200)),
            # So slow that less must do.
            "procrastinate": self._turn(
                Work(system="procrastinate", **one_by_one), ("enqueue", 150), ("enqueue_many", 800), ("work_off", 0)
            ),
        }
        for place in PLACES:
            yield Setting("postgresql-entries", place, "power", trials, is_served=True)

    def consumers(self) -> Iterator[Setting]:
        """Check out, load and remove by 1 to 16 processes of which nobody knows the others, of 64 tasks and of one."""
        trials = {
            label_of(OWN, tasks, workers): self._turn(
                Work(system=OWN, folder="", tasks=tasks, workers=workers),
                ("enqueue_many", 9600 if tasks > 1 else 1600),
                ("work_off", 0),
                leaving_out=("enqueue_many",),
            )
            for tasks in (64, 1)
            for workers in CONSUMERS
        }
        for place in PLACES:
            yield Setting("postgresql-consumers", place, "power", trials, is_served=True)

    def backlog(self) -> Iterator[Setting]:
        """What an enqueue and a claim cost when a thousand or a million entries wait."""
        units = dict.fromkeys(("enqueue", "enqueue 64", "claim and remove", "claim and remove 64"), "µs")
        units |= {"first claim": "ms"}
        trials = {
            f"{entries:,} waiting": lambda url, entries=entries: probed(
                "served_backlog", url, entries=max(self._scaled(entries), 1000)
            )
            for entries in (1_000, 1_000_000)
        }
        yield Setting("postgresql-backlog", "tmpfs", "power", trials, units, is_served=True)

    def waking(self) -> Iterator[Setting]:
        """From another process's enqueue (its return, or its call) to the handler that is given the entry."""
        units = dict.fromkeys(("p50", "p99", "call p50", "call p99"), "ms")
        trials = {"trio": lambda url: probed("served_waking", url, entries=self._scaled(200))}
        for place in PLACES:
            yield Setting("postgresql-waking", place, "power", trials, units, is_served=True)

    def deaths(self) -> Iterator[Setting]:
        """From `kill -9` of a process that holds ten entries until all are available again, with others alive."""
        units = dict.fromkeys(("p50", "max"), "ms")
        trials = {
            label: lambda url, first=first: probed("served_deaths", url, deaths=self._scaled(20), first=first)
            for label, first in (("10 entries", False), ("10 entries, of the first", True))
        }
        for place in PLACES:
            yield Setting("postgresql-deaths", place, "power", trials, units, is_served=True)
