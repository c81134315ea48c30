"""A worker of the storm: tasks that do what can be done with a spool, and write down what they try and what is done.

What a worker does is chosen by a seeded generator; when it is killed is not its affair.
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import msgspec

from helpers.ledger import FIRST, Line, Stamp, What, stamp, stamped
from helpers.spools import Mail, load_spool
from storm.markers import Markers, TwoOwnersError
from storm.turns import DawdlingCalls, Ledger, Turn
from trio_multispool import (
    UNCHANGED,
    Durability,
    EntryBusy,
    NameTaken,
    Ok,
    Release,
    Remove,
    Retention,
    Retry,
    Save,
    Spoolable,
    Unavailable,
    Use,
)
from trio_multispool.monitor import Limits, Monitor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from pathlib import Path

    from helpers.spools import Location
    from trio_multispool import Result, Verdict

STORMY = Spoolable(queues=Mail, metadata=Stamp, data=bytes)
KEYS = [f"key-{number:02}" for number in range(16)]
"""Names that the workers choose themselves, all the same ones, again and again."""
TASKS = 3
ENOUGH = 40
"""Who finds so many entries in a queue enqueues nothing more into it."""
QUEUES = list(Mail)
DELAYS = [None, None, 0.02, 0.3]
"""How long entries wait, in seconds."""
NEARLY = 0.25
"""How much earlier an entry on a server may be had: each process measures the server's clock, as well as it can."""
FOR_GOOD = 3600.0
"""How long the name of what is to be done once is remembered: longer than any storm."""
TO_DO_ONCE = 4000
"""How many such names there are."""
REMEMBERED = [None, 0.0, 0.1]
"""How long the names that are used again and again are remembered."""
PATIENCE = 0.05
"""How long an entry whose handler failed waits."""
ATTEMPTS = 3
GIVEN_UP = {"send": "failed"}
"""Where entries that are tried go when they are given up."""
KEPT = Retention(max_age=2.0, max_count=20)
AT_ONCE = Limits(max_checked_out_age=0, max_tmp_file_age=0)
"""Whoever repairs suspects all that moves."""
LEVELS = [None, None, Durability.PROCESS, Durability.POWER]
SETTLINGS = ["save", "save", "save unchanged", "wait", "remove", "remove", "release"]
UNTAKEN = (NameTaken, EntryBusy)
"""What an enqueue may answer if others use the same names."""


class FailedError(Exception):
    """What a handler raises whose work has failed."""


class Steady:
    """A backoff that is always the same."""

    def delay(self, _attempt: int, _chance: float) -> float:
        """Return it."""
        return PATIENCE


class Worker:
    """One task: what it does it chooses at random."""

    def __init__(self, spool: Any, ledger: Ledger, markers: Markers, called: str, *, nearly: float = 0.0) -> None:
        """Begin with the generator that its name gives. What it has `nearly` at the right time is in time."""
        self.spool = spool
        self.nearly = nearly
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
        deeds = {
            self.enqueue: 8,
            self.enqueue_once: 2,
            self.read: 4,
            self.iterate: 2,
            self.take_by_hand: 6,
            self.work_off: 2,
            self.try_again: 2,
            self.work_off_limited: 1,
            self.expire: 1,
            self.recover: 1,
            self.repair: 1,
        }
        while True:
            await self.random.choices(list(deeds), list(deeds.values()))[0]()
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
            if answer is not None and isinstance(answer.error, NameTaken) and answer.error.finished:
                why = "remembered"
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
            use = Use(self.random.choice(KEYS), remember=self.random.choice(REMEMBERED))
            await self._enqueue(queue, use if how == "use" else None)
            return
        answer = await self.spool.reserve_name()
        async with answer.unwrap() as reserved:
            if self.random.random() < 0.8:
                await self._enqueue(queue, Use(reserved))

    async def enqueue_once(self) -> None:
        """Enqueue what is to be done once, whoever asks for it, and whenever."""
        if len((await self.spool.entries(Mail.SEND)).unwrap()) < ENOUGH:
            number = self.random.randrange(1 + self.random.randrange(TO_DO_ONCE))  # lower ones more often
            name = f"once-{number:04}"
            await self._enqueue(Mail.SEND, Use(name, remember=FOR_GOOD), once=True)

    async def _enqueue(self, queue: Mail, name: Use | None, *, once: bool = False) -> None:
        self._lives += 1
        life = f"{self.called}.{self._lives}"
        known = "" if name is None else name.name if isinstance(name.name, str) else name.name.name
        delay = self.random.choice(DELAYS)
        line = Line(What.ATTEMPT, "enqueue", life, name=known, queue=queue.value, once=once, due=due_after(delay))
        await self.do(
            line,
            lambda: self.spool.enqueue(
                queue,
                stamp(life, FIRST),
                stamped(life, FIRST),
                name=name,
                not_before=delay,
                durability=self.level(),
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
                await self.act(job, in_time=False)

    async def recover(self) -> None:
        """Recover beside the others."""
        (await self.spool.recover()).unwrap()

    async def repair(self) -> None:
        """Check the spool and repair what is found, beside the others, as `multispool fsck --repair` does."""
        monitor = Monitor(self.spool, AT_ONCE)
        (await monitor.repair((await monitor.run_once()).unwrap(), dry_run=False)).unwrap()

    async def expire(self) -> None:
        """Remove what a queue is not to keep."""
        with self._told() as given:

            async def handle(metadata: Stamp, data: Any) -> Verdict[Any, Any]:
                turn = Turn(self, Mail.FAILED.value, data.name, metadata.life, in_time=False)
                await self._work(turn, metadata, data)
                line = turn.line(What.ATTEMPT, "remove")
                self.ledger.write(line)
                given.append(line)
                return Remove()

            (await self.spool.expire(Mail.FAILED, KEPT, before_expiry=handle)).unwrap()

    async def work_off(self) -> None:
        """Have a pool handle a few entries."""
        queue = self.random.choice(QUEUES)
        async with self.spool.reader(queue) as reader:
            await self._have_handled(reader, queue)

    async def try_again(self) -> None:
        """Have a pool handle a few entries, of which some fail and are tried again, until they are given up."""
        retry = Retry(attempts=ATTEMPTS, backoff=Steady(), on=FailedError, dead_letter=Mail.FAILED)
        async with self.spool.reader(Mail.SEND) as reader:
            await self._have_handled(reader, Mail.SEND, failing=0.4, retry=retry)

    async def work_off_limited(self) -> None:
        """Have a pool handle a few entries, at most one of a key at the same time, of all such pools."""
        queue = Mail.RETRY
        async with self.spool.reader(queue, limit_by=key_of, limit=1) as reader:
            await self._have_handled(reader, queue, limited=True)

    async def _have_handled(
        self, reader: Any, queue: Mail, *, failing: float = 0, limited: bool = False, **options: Any
    ) -> None:
        left = self.random.randint(1, 8)
        with self._told() as given:

            async def handle(metadata: Stamp, data: Any) -> Verdict[Any, Any]:
                nonlocal left
                turn = Turn(self, queue.value, data.name, metadata.life)
                with self._alone(turn, f"limit-{key_of(metadata)}") if limited else contextlib.nullcontext():
                    await self._work(turn, metadata, data)
                line, verdict = self._verdict(turn)
                if failing and self.random.random() < failing:
                    line = turn.line(What.ATTEMPT, "fail", queue=GIVEN_UP[queue.value], due=due_after(PATIENCE))
                    verdict = None
                self.ledger.write(line)
                given.append(line)
                left -= 1
                if not left:
                    reader.stop()
                if verdict is None:
                    raise FailedError
                return verdict

            pool = {"concurrency": self.random.randint(1, 3), "prefetch": self.random.choice([0, 0, 2])}
            (await reader.iter_available(handle, **pool, **options)).unwrap()

    @contextlib.contextmanager
    def _told(self) -> Generator[list[Line]]:
        """Yield a list for what handlers answer; what became of that is known at the end of the block."""
        given: list[Line] = []
        what, why = What.DONE, ""
        try:
            yield given
        except BaseException as error:
            what, why = What.FAILED, repr(error)
            raise
        finally:
            for line in given:
                self.ledger.write(msgspec.structs.replace(line, what=what, why=why))

    @contextlib.contextmanager
    def _alone(self, turn: Turn, key: str) -> Generator[None]:
        """Hold the marker of a key: nobody else may work on an entry of it who minds the limit."""
        try:
            self.markers.hold(key)
        except TwoOwnersError as error:
            self.ledger.write(turn.line(What.TWICE, "", why=f"over the limit of {key}: {error}"))
            raise
        try:
            yield
        finally:
            self.markers.let_go(key)

    async def _work(self, turn: Turn, metadata: Stamp, data: Any) -> None:
        try:
            await turn.work(metadata, data)
        finally:
            turn.end()

    async def act(self, job: Any, *, in_time: bool = True) -> None:
        """Work on an entry, and settle it, or leave it unsettled."""
        leaving = None
        async with job:
            turn = Turn(self, job.queue.value, job.name, job.metadata.life, in_time=in_time)
            await self._work(turn, job.metadata, job.data)
            if self.random.random() < 0.1 or not await self._settle(turn, job):
                leaving = turn.line(What.ATTEMPT, "release")
                self.ledger.write(leaving)
        if leaving is not None:
            self.ledger.write(msgspec.structs.replace(leaving, what=What.DONE))

    async def _settle(self, turn: Turn, job: Any) -> bool:
        line, verdict = self._verdict(turn)
        match verdict:
            case Save(queue, metadata, not_before):
                return await self.do(
                    line, lambda: job.save(queue, metadata, not_before=not_before, durability=self.level())
                )
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
            case "wait":
                delay = self.random.choice([each for each in DELAYS if each is not None])
                line = turn.line(What.ATTEMPT, "save", queue=queue.value, due=due_after(delay))
                return line, Save(queue, UNCHANGED, delay)
            case "save unchanged":
                return turn.line(What.ATTEMPT, "save", queue=queue.value), Save(queue, UNCHANGED)
            case _:
                line = turn.line(What.ATTEMPT, "save", queue=queue.value, metadata=new)
                return line, Save(queue, stamp(turn.life, new))


def due_after(delay: float | None) -> float:
    """Return before what time of day nobody may have an entry that is to wait from now on; 0: at once."""
    return 0.0 if delay is None else time.time() + delay


def key_of(metadata: Stamp) -> str:
    """Return the key of an entry by which it is limited."""
    return metadata.life[-1]


def work(place: Location, records: Path, called: str, backend: str) -> None:
    """Work in this process until it is killed: several tasks, one spool, one ledger."""
    ledger, markers = Ledger(records / "ledgers" / called), Markers(records / "markers")

    async def main() -> None:
        is_served = isinstance(place, str)
        calls = {} if is_served else {"system_calls": DawdlingCalls(called)}
        async with await load_spool(place, STORMY, **calls) as spool, anyio.create_task_group() as tasks:
            for task in range(TASKS):
                worker = Worker(spool, ledger, markers, f"{called}.{task}", nearly=NEARLY if is_served else 0.0)
                tasks.start_soon(worker.run)

    anyio.run(main, backend=backend)
