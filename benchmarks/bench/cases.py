"""What is measured: cases, each with places and levels, and what takes turns there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bench.crew import rates
from bench.probes import probed
from bench.served import Served
from bench.setting import OWN, Measure, Setting, label_of
from bench.systems import PEERS, SYSTEMS
from bench.waking import waking
from bench.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench.work import Level, Phase

LIMIT = "bare loop"
SQLITE = "SQLite"
TASKS = (1, 8, 64, 256)

DISKS: tuple[tuple[str, Level], ...] = (("ext4", "power"), ("xfs", "power"))
MEMORY: tuple[str, Level] = ("tmpfs", "process")


class Cases:
    """The cases, by name. A `scale` below 1 makes all of them smaller, to see whether they run."""

    def __init__(self, scale: float = 1) -> None:
        """Take so much of each."""
        self._scale = scale
        self.all: dict[str, Callable[[], Iterator[Setting]]] = {
            "entries": self.entries,
            "processes": self.processes,
            "payloads": self.payloads,
            "save": self.save,
            "pipeline": self.pipeline,
            "together": self.together,
            "by-hand": self.by_hand,
            "consumers": self.consumers,
            "waking": self.waking,
            "backlog": self.backlog,
            "dead-owners": self.dead_owners,
            "monitor": self.monitor,
            "hop": self.hop,
            "import": self.importing,
            **Served(self._scaled).all,
        }

    def _scaled(self, count: int) -> int:
        return max(int(count * self._scale), 4)

    def _turn(self, work: Work, count: int, *phases: Phase) -> Measure:
        """Enqueue so many, and time phases; the first is `enqueue`, whose rate is left out if it is not asked for."""
        count = self._scaled(count) // work.workers * work.workers or work.workers
        done: tuple[Phase, ...] = phases if phases[0].startswith("enqueue") else ("enqueue", *phases)

        def measure(folder: str) -> dict[str, float]:
            found = rates(msgspec.structs.replace(work, folder=folder), [(phase, count) for phase in done])
            return {phase: rate for phase, rate in zip(done, found, strict=True) if phase in phases}

        return measure

    def _count(self, system: str, level: Level, tasks: int, size: int = 1024) -> int:
        """Return how many entries make about a second, and no more than 400 MB."""
        if level == "power":
            count = 4000 if tasks >= 8 else 500
        else:
            count = 8000 if tasks >= 8 else 3000 if system == OWN else 8000
        return min(count, 400_000_000 // size)

    def _turns(
        self, systems: Mapping[str, tuple[int, ...]], level: Level, *phases: Phase, size: int = 1024, workers: int = 1
    ) -> dict[str, Measure]:
        """Have each system have a turn with each number of tasks, if it knows the level."""
        return {
            label_of(system, number, workers): self._turn(
                Work(system=system, folder="", level=level, tasks=number, size=size, workers=workers),
                self._count(system, level, number, size),
                *phases,
            )
            for system, tasks in systems.items()
            if level in SYSTEMS[system].classes
            for number in tasks
        }

    def entries(self) -> Iterator[Setting]:
        """Enqueue, check out and remove: this library with 1 to 256 tasks, and all others."""
        systems = {LIMIT: (1,), SQLITE: (1,), OWN: TASKS, **dict.fromkeys(PEERS, (1,))}
        for place, level in (*DISKS, ("btrfs", "power"), MEMORY):
            yield Setting("entries", place, level, self._turns(systems, level, "enqueue", "remove"))

    def processes(self) -> Iterator[Setting]:
        """The same by four processes at the same time."""
        systems = {LIMIT: (1,), SQLITE: (1,), OWN: (1, 64)}
        for place, level in (*DISKS, MEMORY):
            yield Setting("processes", place, level, self._turns(systems, level, "enqueue", "remove", workers=4))

    def payloads(self) -> Iterator[Setting]:
        """The same with larger data."""
        systems = {LIMIT: (1,), SQLITE: (1,), OWN: (1, 64), **dict.fromkeys(PEERS, (1,))}
        for size in (65_536, 4_194_304):
            turns = self._turns(systems, "power", "enqueue", "remove", size=size)
            yield Setting("payloads", "ext4", "power", turns, size=size)

    def save(self) -> Iterator[Setting]:
        """Check out, and save to another queue with new metadata."""
        yield from self._moving("save")

    def pipeline(self) -> Iterator[Setting]:
        """From a first queue through a second and a third, with new metadata each time, until they are removed."""
        yield from self._moving("pipeline")

    def _moving(self, phase: Phase) -> Iterator[Setting]:
        systems = {LIMIT: (1,), SQLITE: (1,), OWN: (1, 64)}
        for place, level in (*DISKS, MEMORY):
            yield Setting(phase, place, level, self._turns(systems, level, phase))

    def together(self) -> Iterator[Setting]:
        """A hundred at a time: `enqueue_many`, and the same files in a bare loop with one `syncfs`."""
        for place in ("ext4", "xfs", "btrfs"):
            turns = {
                label: self._turn(Work(system=system, folder="", level="power"), 5000, "enqueue_many")
                for system, label in ((LIMIT, f"{LIMIT}, syncfs"), (OWN, f"{OWN}, enqueue_many"))
            }
            yield Setting("together", place, "power", turns)

    def by_hand(self) -> Iterator[Setting]:
        """Check out by name, and remove: by `with_entry`, and by `try_checkout` and `remove`."""
        place, level = MEMORY
        turns = self._turns({LIMIT: (1,)}, level, "remove")
        for phase in ("with_entry", "try_checkout"):
            found = self._turns({OWN: (1, 64)}, level, phase)
            turns |= {f"{label}, {phase}": turn for label, turn in found.items()}
        yield Setting("by-hand", place, level, turns)

    def consumers(self) -> Iterator[Setting]:
        """Check out and remove by 1 to 16 processes, each with one task, of which nobody knows the others."""
        for place, level in (DISKS[0], MEMORY):
            turns = {
                f"{workers} processes": self._turn(
                    Work(system=OWN, folder="", level=level, workers=workers), 3200, "remove"
                )
                for workers in (1, 2, 4, 8, 16)
            }
            yield Setting("consumers", place, level, turns)

    def waking(self) -> Iterator[Setting]:
        """From another process's enqueue (its return, or its rename) to the reader's user; and what waiting costs."""
        units = dict.fromkeys(("p50", "p99", "rename p50", "rename p99"), "ms") | {"idle": "% of a CPU"}
        entries = self._scaled(200)
        for level in ("power", "process"):
            turns = {
                backend: lambda folder, backend=backend, level=level: waking(folder, backend, level, entries)
                for backend in ("trio", "asyncio", "bare")
            }
            yield Setting("waking", "ext4", level, turns, units)

    def backlog(self) -> Iterator[Setting]:
        """What one more enqueue and each claim cost when a thousand to a million entries wait."""
        units = dict.fromkeys(("enqueue", "claim and remove", "worst claim and remove"), "µs")
        units |= {"first claim": "s", "memory": "MB"}
        turns = {
            f"{entries:,} waiting": lambda folder, entries=entries: probed(
                "backlog", folder, entries=max(int(entries * self._scale), 1000)
            )
            for entries in (1_000, 10_000, 100_000, 1_000_000)
        }
        yield Setting("backlog", "tmpfs", "process", turns, units)

    def dead_owners(self) -> Iterator[Setting]:
        """Put back what a thousand dead processes held, ten entries each."""
        turns = {"1,000 owners": lambda folder: probed("dead_owners", folder, owners=self._scaled(1000))}
        yield Setting("dead-owners", "tmpfs", "process", turns, {"recover": "s"})

    def monitor(self) -> Iterator[Setting]:
        """Check a spool in which a million entries wait."""
        turns = {"1,000,000 waiting": lambda folder: probed("monitoring", folder, entries=self._scaled(1_000_000))}
        yield Setting("monitor", "tmpfs", "process", turns, {"check": "s", "memory": "MB"})

    def hop(self) -> Iterator[Setting]:
        """A thread hop that does nothing."""
        turns = {"hop": lambda folder: probed("hopping", folder, hops=self._scaled(3000))}
        yield Setting("hop", "tmpfs", "process", turns, "µs")

    def importing(self) -> Iterator[Setting]:
        """Import the library, and what it needs."""
        turns = {"import": lambda folder: probed("importing", folder, times=self._scaled(20))}
        yield Setting("import", "tmpfs", "process", turns, "ms")
