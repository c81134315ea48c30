"""What a worker of the storm writes down: a ledger, and in it each owner's turn with an entry."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

import msgspec

from helpers.ledger import TORN, Line, What, data_version_of, stamped, version_of
from helpers.syscalls import HookedCalls
from storm.markers import TwoOwnersError
from trio_multispool import Ok

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.ledger import Stamp
    from storm.worker import Worker

DAWDLES = 0.03
"""Before what share of its system calls a worker pauses, if it does."""
PAUSE = 0.004
"""How long, in seconds, on average."""


class DawdlingCalls(HookedCalls):
    """The real system calls, now and then after a pause: between two calls is where kills and others do most harm."""

    def __init__(self, seed: str) -> None:
        """Dawdle at random, or not at all."""
        self._random = random.Random(seed)
        self._share = self._random.choice([0, DAWDLES])

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Make a call."""
        if self._random.random() < self._share:
            time.sleep(self._random.expovariate(1 / PAUSE))
        return perform()


class Ledger:
    """A file that is only appended to, each line by one call: what was written stays, when its process is killed."""

    def __init__(self, path: Path) -> None:
        """Make it."""
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, line: Line) -> None:
        """Append a line."""
        os.write(self._fd, msgspec.json.encode(line) + b"\n")


def read_ledger(path: Path) -> list[Line]:
    """Return the lines; one that was not written to its end does not count."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [msgspec.json.decode(line, type=Line) for line in whole.splitlines()]


class Turn:
    """One owner's time with one entry: the marker is held from its beginning until just before the entry is settled."""

    def __init__(self, worker: Worker, queue: str, name: str, life: str, *, in_time: bool = True) -> None:
        """Hold the marker; raises `TwoOwnersError`. An entry that was taken by its name may have waited still."""
        self.life = life
        self._at = time.time() + worker.nearly if in_time else 0.0
        self._worker = worker
        self._place = {"queue": queue, "name": name}
        self._held = False
        try:
            self.number = worker.markers.hold(name)
        except TwoOwnersError as error:
            worker.ledger.write(Line(What.TWICE, life=life, why=f"process {os.getpid()} and {error}", **self._place))
            raise
        self._held = True

    async def work(self, metadata: Stamp, data: Any) -> None:
        """Look at the entry, and rewrite its data a few times."""
        worker = self._worker
        loaded = await data.load()
        version = data_version_of(self.life, loaded.value) if isinstance(loaded, Ok) else TORN
        seen = {"metadata": version_of(self.life, metadata), "data": version}
        worker.ledger.write(Line(What.TAKEN, life=self.life, turn=self.number, at=self._at, **self._place, **seen))
        for number in range(worker.random.choice([0, 0, 1, 2])):
            new = f"{self.number}.{number}"
            content, level = stamped(self.life, new), worker.level()
            await worker.do(
                self.line(What.ATTEMPT, "data save", data=new),
                lambda content=content, level=level: data.save(content, durability=level),
            )

    def line(self, what: What, operation: str, **words: str) -> Line:
        """Return a line of this turn."""
        return Line(what, operation=operation, life=self.life, turn=self.number, **words)

    def end(self) -> None:
        """Stop working on the entry. Idempotent."""
        if self._held:
            self._held = False
            self._worker.markers.let_go(self._place["name"])
