"""The systems that are measured, what each promises, and where its module is.

A system's module is imported only in the process that measures it: none of the peers need be there for the others.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.work import Level, Phase, Took, Work

Kind = Literal["acknowledged", "destructive", "unclaimed"]
"""How an entry is taken: claimed, and acknowledged later; popped, so that it is lost with whoever took it; or looked at
and removed, with nothing that keeps a second consumer away. Only the first is what this library does."""

Class = Literal["power", "files", "process"]
"""What an acknowledged entry survives: the loss of power; the same, but for its name, because no directory is synced;
or whatever kills processes."""


class Running(Protocol):
    """A system that is open in this process."""

    def measure(self, phase: Phase, count: int, ready: Callable[[], None]) -> Took:
        """Do a phase: enqueue so many entries, or work off so many of what is there (fewer, if others have them).

        `ready` is called before the clock runs; it returns when all other processes are ready too.
        """
        ...


@dataclass(frozen=True)
class System:
    """A system that can be measured."""

    name: str
    module: str
    classes: dict[Level, Class]
    """What it promises at each level that it can be asked for."""

    kind: Kind = "acknowledged"
    distribution: str | None = None
    """What to install, and whose version to tell."""

    is_served: bool = False
    """Whether it is on a PostgreSQL server."""

    def opened(self, work: Work) -> Running:
        """Open it in this process."""
        return importlib.import_module(f"bench.systems.{self.module}").opened(work)


BOTH: dict[Level, Class] = {"power": "power", "process": "process"}

SYSTEMS = {
    system.name: system
    for system in (
        System("trio-multispool", "own", BOTH),
        System("bare loop", "bare", BOTH),
        System("SQLite", "sqlite", BOTH),
        System("persist-queue", "persist_queue", {"power": "power"}, distribution="persist-queue"),
        System("localqueue", "local_queue", BOTH, distribution="localqueue"),
        System("litequeue", "lite_queue", {"process": "process"}, distribution="litequeue"),
        System("femtoqueue", "femto_queue", {"power": "files", "process": "process"}, distribution="femtoqueue"),
        System("python-dirq", "dir_queue", {"process": "process"}, distribution="dirq"),
        System("huey", "huey_storage", BOTH, kind="destructive", distribution="huey"),
        System("diskcache", "disk_cache", {"process": "process"}, kind="destructive", distribution="diskcache"),
        System("Maildir", "maildir", {"power": "files"}, kind="unclaimed"),
        System("pgqueuer", "pgqueuer_worker", {"power": "power"}, distribution="pgqueuer", is_served=True),
        System("pgqueuer on psycopg", "pgqueuer_worker", {"power": "power"}, distribution="psycopg", is_served=True),
        System(
            "procrastinate", "procrastinate_worker", {"power": "power"}, distribution="procrastinate", is_served=True
        ),
    )
}

PEERS = tuple(
    name
    for name, system in SYSTEMS.items()
    if name not in {"trio-multispool", "bare loop", "SQLite"} and not system.is_served
)
