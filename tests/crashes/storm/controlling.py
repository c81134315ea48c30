"""The storm: workers are started, stopped, continued and killed at random moments, and the spool is judged at the end.

This process stays single-threaded and forks its workers, which costs little, so that they can be killed often. It dies
with none left: the kernel kills a worker whose parent is gone.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import itertools
import os
import random
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Final

from helpers.ledger import Fault, What, check, found_in
from helpers.spools import state_of
from helpers.stores import claim, claim_waiting, remove, store_at, sweep
from storm.turns import read_ledger
from storm.worker import GIVEN_UP, work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from helpers.ledger import Line, Verdict
    from helpers.spools import Location

_PARENT_DEATH: Final = 1  # PR_SET_PDEATHSIG, linux/prctl.h
_FAILED: Final = 70
"""The status of a worker that did not live to be killed."""
_BACKENDS: Final = ("trio", "asyncio")

KINDS: Final = {"enqueue", "save", "data save", "remove", "release", "fail"}
"""Of operations."""

GOOD: Final = "nothing was lost, doubled, stale, torn, resurrected, left over, or owned twice"

CALM: Final = 0.08
"""How long it is quiet between two blows, in seconds, on average."""
FAINT: Final = 0.25
"""How long a stopped worker stays so, on average."""
PATIENCE: Final = 60.0
"""For how long a server may not notice that a worker has died: it is told so when the kernel closes its sockets."""


@dataclasses.dataclass
class _Process:
    pid: int
    called: str
    continues_at: float | None = None
    """When it is to be continued, if it is stopped."""


@dataclasses.dataclass
class Storm:
    """One storm, over a spool that is made for it, with its records in a directory that holds nothing else."""

    place: Location
    directory: Path
    seed: int
    workers: int = 6
    kills: int = 0
    stops: int = 0
    killed_while_stopped: int = 0
    failures: list[Fault] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the spool, and room for what is written down."""
        self._records = self.directory / "records"
        for kind in ("ledgers", "markers"):
            (self._records / kind).mkdir(parents=True)
        store_at(self.place).close()
        self._random = random.Random(self.seed)
        self._running: list[_Process] = []
        self._generations: collections.Counter[int] = collections.Counter()

    def rage(self, goes_on: Callable[[], bool]) -> None:
        """Blow until it is enough; afterwards, no worker is left."""
        try:
            self._running = [self._start(number) for number in range(self.workers)]
            while goes_on():
                time.sleep(self._random.expovariate(1 / CALM))
                self._continue_the_rested()
                self._blow()
        finally:
            for number in range(len(self._running)):
                self._kill(number)

    def _start(self, number: int) -> _Process:
        """Fork a worker."""
        self._generations[number] += 1
        called = f"{self.seed}.{number}.{self._generations[number]}"
        backend = _BACKENDS[(number + self._generations[number]) % len(_BACKENDS)]
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return _Process(pid, called)
        try:
            ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
            work(self.place, self._records, called, backend)
        except BaseException:  # noqa: BLE001  # its status says so
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(_FAILED)

    def _blow(self) -> None:
        """Kill one worker, or stop it; once in a while kill several, or all, at once."""
        chosen = self._random.sample(range(self.workers), self._random.choice([1] * 16 + [3, self.workers]))
        if len(chosen) == 1 and self._random.random() < 0.25:
            self._stop(self._running[chosen[0]])
            return
        for number in chosen:
            self._kill(number)
        for number in chosen:
            self._running[number] = self._start(number)

    def _kill(self, number: int) -> None:
        process = self._running[number]
        os.kill(process.pid, signal.SIGKILL)
        _, status = os.waitpid(process.pid, 0)
        if os.WIFSIGNALED(status):
            self.kills += 1
            self.killed_while_stopped += process.continues_at is not None
        else:
            self.failures.append(Fault("failed", process.called, "it ended by itself; see its standard error"))

    def _stop(self, process: _Process) -> None:
        if process.continues_at is None:
            os.kill(process.pid, signal.SIGSTOP)
            process.continues_at = time.monotonic() + self._random.expovariate(1 / FAINT)
            self.stops += 1

    def _continue_the_rested(self) -> None:
        for process in self._running:
            if process.continues_at is not None and process.continues_at < time.monotonic():
                os.kill(process.pid, signal.SIGCONT)
                process.continues_at = None

    def has_tried_all(self) -> bool:
        """Tell whether each kind of operation was acknowledged once, so that there is something to judge."""
        lines = itertools.chain.from_iterable(self._ledgers())
        return {line.operation for line in lines if line.what is What.DONE} >= KINDS

    def _ledgers(self) -> list[list[Line]]:
        return [read_ledger(path) for path in sorted((self._records / "ledgers").iterdir())]

    def judge(self) -> Verdict:
        """Recover once, compare the spool with the ledgers, and take everything out of it."""
        storage = store_at(self.place)
        with contextlib.closing(storage):
            end = time.monotonic() + PATIENCE
            sweep(storage)
            while any(state_of(self.place).checked_out.values()) and time.monotonic() < end:
                time.sleep(0.01)  # until a server has noticed who has died
                sweep(storage)
            found, faults = found_in(state_of(self.place))
            verdict = check(self._ledgers(), found, GIVEN_UP)
            verdict.faults.extend([*self.failures, *faults])
            for queue in storage.queues():
                for name in storage.names(queue):
                    remove(storage, claim(storage, queue, name))
                for _, name in storage.waiting(queue):
                    remove(storage, claim_waiting(storage, queue, name))
        rest = state_of(self.place)
        verdict.faults.extend(Fault("left over", name, "it could not be removed") for name in rest.entries())
        verdict.faults.extend(Fault("left over", "the empty spool", fault) for fault in rest.faults())
        return verdict

    def summary(self, verdict: Verdict) -> Iterator[str]:
        """Yield what happened, in lines."""
        stopped = f"{self.stops} stops, {self.killed_while_stopped} killed while they were stopped"
        yield f"seed {self.seed}: {self.workers} workers, {self.kills} kills, {stopped}"
        for kind, count in sorted(verdict.acknowledged.items()):
            yield f"{count:8} x {kind} acknowledged, {verdict.unanswered[kind]} killed before it was"
        yield f"{verdict.brought_back:8} entries of killed owners were brought back"
        for fault in verdict.faults:
            yield f"FAULT: {fault.kind}: {fault.about}: {fault.why}"
        yield (f"{len(verdict.faults)} faults" if verdict.faults else GOOD)
