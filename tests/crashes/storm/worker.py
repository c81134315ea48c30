"""A worker of the storm: tasks that do what can be done with a spool, and write down what they try and what is done.

What a worker does is chosen by a seeded generator; when it is killed is not its affair.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import msgspec

from helpers.ledger import FIRST, TORN, Line, Stamp, What, data_version_of, stamp, stamped, version_of
from helpers.spools import Mail, load_spool
from helpers.syscalls import HookedCalls
from storm.markers import Markers, TwoOwnersError
from trio_multispool import (
    UNCHANGED,
    Durability,
    EntryBusy,
    NameTaken,
    Ok,
    Release,
    Remove,
    Save,
    Spoolable,
    Unavailable,
    Use,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio_multispool import Result, Verdict

STORMY = Spoolable(queues=Mail, metadata=Stamp, data=bytes)
KEYS = [f"key-{number:02}" for number in range(16)]
"""Names that the workers choose themselves, all the same ones, again and again."""
TASKS = 3
ENOUGH = 40
"""Who finds so many entries in a queue enqueues nothing more into it."""
QUEUES = list(Mail)
DAWDLES = 0.03
"""Before what share of its system calls a worker pauses, if it does."""
PAUSE = 0.004
"""How long, in seconds, on average."""
LEVELS = [None, None, Durability.PROCESS, Durability.POWER]
SETTLINGS = ["save", "save", "save unchanged", "remove", "remove", "release"]
UNTAKEN = (NameTaken, EntryBusy)
"""What an enqueue may answer if others use the same names."""


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

    def __init__(self, worker: Worker, queue: str, name: str, life: str) -> None:
        """Hold the marker; raises `TwoOwnersError`."""
        self.life = life
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
        worker.ledger.write(Line(What.TAKEN, life=self.life, turn=self.number, **self._place, **seen))
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


class Worker:
    """One task: what it does it chooses at random."""

    def __init__(self, spool: Any, ledger: Ledger, markers: Markers, called: str) -> None:
        """Begin with the generator that its name gives."""
        self.spool = spool
        self.ledger = ledger
        self.markers = markers
        self.called = called
        self.random = random.Random(called)
        self._lives = 0

    def level(self) -> Durability | None:
        """Choose a level."""
        return self.random.choice(LEVELS)

    async def run(self) -> None:
        """Work until killed."""
        deeds = [self.enqueue, self.read, self.iterate, self.take_by_hand, self.work_off, self.recover]
        while True:
            await self.random.choices(deeds, [8, 4, 2, 6, 2, 1])[0]()
            await anyio.lowlevel.checkpoint()

    async def do(
        self,
        line: Line,
        call: Callable[[], Awaitable[Result[Any, Any]]],
        *,
        expected: tuple[type[Exception], ...] = (),
        name_of: Callable[[Any], str] = lambda _: "",
    ) -> bool:
        """Do something between two lines; one in ten may be cancelled on the way, and then did not happen."""
        self.ledger.write(line)
        answer: Result[Any, Any] | None = None
        patience = self.random.expovariate(1000) if self.random.random() < 0.1 else float("inf")
        with anyio.move_on_after(patience):
            answer = await call()
        done = isinstance(answer, Ok)
        if isinstance(answer, Ok):
            told = {"name": name_of(answer.value)} if name_of(answer.value) else {}
            self.ledger.write(msgspec.structs.replace(line, what=What.DONE, **told))
        elif answer is None or isinstance(answer.error, expected):
            why = "cancelled" if answer is None else type(answer.error).__name__
            self.ledger.write(msgspec.structs.replace(line, what=What.REFUSED, why=why))
        else:
            self.ledger.write(msgspec.structs.replace(line, what=What.FAILED, why=repr(answer.error)))
        return done

    # What a worker does

    async def enqueue(self) -> None:
        """Enqueue, under a name that is made, reserved, or shared with the others; if there is room."""
        queue = self.random.choice(QUEUES)
        if len((await self.spool.entries(queue)).unwrap()) >= ENOUGH:
            return
        how = self.random.choice(["make", "reserve", "use", "use"])
        if how != "reserve":
            await self._enqueue(queue, Use(self.random.choice(KEYS)) if how == "use" else None)
            return
        answer = await self.spool.reserve_name()
        async with answer.unwrap() as reserved:
            if self.random.random() < 0.8:
                await self._enqueue(queue, Use(reserved))

    async def _enqueue(self, queue: Mail, name: Use | None) -> None:
        self._lives += 1
        life = f"{self.called}.{self._lives}"
        known = "" if name is None else name.name if isinstance(name.name, str) else name.name.name
        line = Line(What.ATTEMPT, "enqueue", life, name=known, queue=queue.value)
        await self.do(
            line,
            lambda: self.spool.enqueue(
                queue, stamp(life, FIRST), stamped(life, FIRST), name=name, durability=self.level()
            ),
            expected=UNTAKEN if name is not None and isinstance(name.name, str) else (),
            name_of=lambda entry: entry.name,
        )

    async def read(self) -> None:
        """Take a few entries through a reader, some of them at the same time."""
        async with self.spool.reader(self.random.choice(QUEUES)) as reader:
            jobs = [(await reader.dequeue_available()).unwrap() for _ in range(self.random.randint(1, 3))]
            for job in jobs:
                if job is not None:
                    await self.act(job)

    async def iterate(self) -> None:
        """Take a few entries from an iteration."""
        left = self.random.randint(1, 5)
        async with self.spool.reader(self.random.choice(QUEUES)) as reader:
            async for job in reader.available():
                await self.act(job)
                left -= 1
                if not left:
                    reader.stop()

    async def take_by_hand(self) -> None:
        """Take one of the entries that are listed, if it is still there."""
        entries = (await self.spool.entries(self.random.choice(QUEUES))).unwrap()
        if entries:
            job = (await self.random.choice(entries).try_checkout()).unwrap()
            if not isinstance(job, Unavailable):
                await self.act(job)

    async def recover(self) -> None:
        """Recover beside the others."""
        (await self.spool.recover()).unwrap()

    async def work_off(self) -> None:
        """Have a pool handle a few entries; what its verdicts did is known when it has ended."""
        queue, left, given = self.random.choice(QUEUES), self.random.randint(1, 8), []

        async def handle(metadata: Stamp, data: Any) -> Verdict[Any, Any]:
            nonlocal left
            turn = Turn(self, queue.value, data.name, metadata.life)
            try:
                await turn.work(metadata, data)
            finally:
                turn.end()
            line, verdict = self._verdict(turn)
            self.ledger.write(line)
            given.append(line)
            left -= 1
            if not left:
                reader.stop()
            return verdict

        async with self.spool.reader(queue) as reader:
            pool = {"concurrency": self.random.randint(1, 3), "prefetch": self.random.choice([0, 0, 2])}
            answer = await reader.iter_available(handle, **pool)
        what, why = (What.DONE, "") if answer == Ok(None) else (What.FAILED, repr(answer))
        for line in given:
            self.ledger.write(msgspec.structs.replace(line, what=what, why=why))

    async def act(self, job: Any) -> None:
        """Work on an entry, and settle it, or leave it unsettled."""
        leaving = None
        async with job:
            turn = Turn(self, job.queue.value, job.name, job.metadata.life)
            try:
                await turn.work(job.metadata, job.data)
            finally:
                turn.end()
            if self.random.random() < 0.1 or not await self._settle(turn, job):
                leaving = turn.line(What.ATTEMPT, "release")
                self.ledger.write(leaving)
        if leaving is not None:
            self.ledger.write(msgspec.structs.replace(leaving, what=What.DONE))

    async def _settle(self, turn: Turn, job: Any) -> bool:
        line, verdict = self._verdict(turn)
        match verdict:
            case Save(queue, metadata):
                return await self.do(line, lambda: job.save(queue, metadata, durability=self.level()))
            case Remove():
                return await self.do(line, lambda: job.remove(durability=self.level()))
            case _:
                return await self.do(line, job.release)

    def _verdict(self, turn: Turn) -> tuple[Line, Verdict[Any, Any]]:
        """Choose how to settle; return the line that says so, too."""
        queue, new = self.random.choice(QUEUES), f"{turn.number}"
        match self.random.choice(SETTLINGS):
            case "remove":
                return turn.line(What.ATTEMPT, "remove"), Remove()
            case "release":
                return turn.line(What.ATTEMPT, "release"), Release()
            case "save unchanged":
                return turn.line(What.ATTEMPT, "save", queue=queue.value), Save(queue, UNCHANGED)
            case _:
                line = turn.line(What.ATTEMPT, "save", queue=queue.value, metadata=new)
                return line, Save(queue, stamp(turn.life, new))


def work(path: Path, records: Path, called: str, backend: str) -> None:
    """Work in this process until it is killed: several tasks, one spool, one ledger."""
    ledger, markers = Ledger(records / "ledgers" / called), Markers(records / "markers")

    async def main() -> None:
        calls = DawdlingCalls(called)
        async with await load_spool(path, STORMY, system_calls=calls) as spool, anyio.create_task_group() as tasks:
            for task in range(TASKS):
                tasks.start_soon(Worker(spool, ledger, markers, f"{called}.{task}").run)

    anyio.run(main, backend=backend)
