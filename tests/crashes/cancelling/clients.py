"""A client of the storm: a task that does all that can be done with a spool, and writes down what it was told.

What a client does is chosen by a seeded generator. Around each deed, and around single operations in it, are blows.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from cancelling.making import Maker
from cancelling.places import Thunder, is_thunder
from cancelling.records import notes_of
from cancelling.workers import PATIENCE, SHARED, Turn, told
from helpers.ledger import Line, What
from helpers.spools import Mail
from trio_multispool import (
    EntryBusy,
    EntryNotFound,
    Err,
    Exponential,
    GiveUp,
    Ok,
    Release,
    Remove,
    Retention,
    Retry,
    RetryLater,
    Save,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from helpers.ledger import Stamp


class Client(Maker):
    """One task: what it does it chooses at random."""

    async def run(self, deeds: int) -> None:
        """Do so many things."""
        choices = {
            self.enqueue: 5,
            self.enqueue_many: 2,
            self.enqueue_reserved: 3,
            self.take_by_name: 4,
            self.handle_by_name: 4,
            self.dequeue: 3,
            self.go_through: 2,
            self.iterate: 5,
            self.send_and_receive: 2,
            self.expire: 1,
            self.change_alone: 3,
            self.look: 2,
            self.open_another: 1,
            **({self.withdraw: 2} if self.round.native else {}),
        }
        for deed in self.chance.choices(list(choices), list(choices.values()), k=deeds):
            try:
                await self.blows.befall(deed)
            except Exception as error:  # what is no thunder is a fault, and passes
                if not is_thunder(error):
                    self.records.fault("raised", deed.__name__, repr(error))
                    raise
                if self.round.interrupted and self._is_main:
                    raise  # it may have taken the place of the interrupt
            except BaseException as error:
                if not self.round.interrupted:
                    self.records.fault("doubled", deed.__name__, f"{error!r} came through all blows\n{told(error)}")
                raise
            await anyio.lowlevel.checkpoint()

    # Taking one entry

    async def _any_entry(self) -> Any:
        queue = self.chance.choice(SHARED)
        entries = (await self.spool.entries(queue)).unwrap()
        if self.chance.random() < 0.2:
            entries += [entry for _, entry in (await self.spool.waiting(queue)).unwrap()]
        return self.chance.choice(entries) if entries else self.spool.entry(queue, "none").unwrap()

    async def take_by_name(self) -> None:
        """Check one entry out, by its name, and work on it."""
        entry, early = await self._any_entry(), self.chance.random() < 0.3
        answer = await (entry.checkout if self.chance.random() < 0.5 else entry.try_checkout)(early=early)
        if isinstance(answer, Err):
            if not isinstance(answer.error, (EntryNotFound, EntryBusy)):
                self.records.fault("failed", "check-out", repr(answer))
        elif not isinstance(answer.value, Unavailable):
            await self.act(answer.value)

    async def act(self, job: Any, *, in_a_block: bool = True) -> None:
        """Work on an entry in hand, and settle it, or leave it unsettled."""
        turn = Turn(self, job.queue, job.name, job.metadata)
        async with job if in_a_block else contextlib.nullcontext():
            try:
                await self.blows.befall(functools.partial(turn.work, job.data, self.blows), 2)
                for _ in range(self.chance.choice([0, 1, 1, 1, 2])):
                    if not job.settled:
                        await self.blows.befall(functools.partial(self._settle, turn, job), 2)
            finally:
                turn.end()  # before the block is left: then somebody else may have it

    async def _settle(self, turn: Turn, job: Any) -> None:
        line, verdict = turn.verdict()
        calls: dict[type, Callable[[], Awaitable[Any]]] = {
            Save: lambda: job.save(
                verdict.queue, verdict.metadata, not_before=verdict.not_before, durability=self.level()
            ),
            Remove: lambda: job.remove(durability=self.level()),
            Release: job.release,
        }
        self.records.end_turn(job.name, turn.number)
        try:
            await self.do(line, calls[type(verdict)], self.blows)
        except BaseException as error:
            if job.settled != self.records.happened(line.operation, error):
                self.records.fault("settled", job.name, f"{job!r} after {error!r} with {notes_of(error)}")
            raise

    # Handlers

    def handler(self, queue: Mail, *, retry: bool = False, after: Callable[[], object] = lambda: None) -> Any:
        """Return a handler; what it returns counts as stored."""

        async def handle(metadata: Stamp, data: Any) -> Any:
            turn = Turn(self, queue, data.name, metadata)
            try:
                await turn.work(data, None)
                for _ in range(self.chance.choice([0, 0, 1, 5])):
                    await anyio.lowlevel.checkpoint()
                if self.chance.random() < 0.2:
                    await anyio.sleep(self.chance.expovariate(500))
                if retry and self.chance.random() < 0.4:
                    return self._fail_an_attempt(turn)
                self._thunder_now_and_then()
                line, verdict = turn.verdict()
                self.records.write(line)
                self.records.close(line, What.DONE)
                return verdict
            except BaseException:
                if retry:  # it may have been the time limit, and the last attempt; whether it was, the library counts
                    self.records.write(turn.line("save", queue=Mail.FAILED.value))
                raise
            finally:
                turn.end()
                after()

        return handle

    def _thunder_now_and_then(self) -> None:
        if self.chance.random() < 0.05:
            raise Thunder

    def _fail_an_attempt(self, turn: Turn) -> Any:
        line, kind = turn.line("save", queue=Mail.FAILED.value), self.chance.choice(["raise", "later", "give up"])
        if kind == "raise":
            raise Thunder
        self.records.write(line)
        match kind:
            case "later":  # it may be the last attempt
                return RetryLater(self.chance.choice([0, 0.001, 60]), counts=self.chance.random() < 0.5)
            case _:
                self.records.close(line, What.DONE)
                return GiveUp("enough")

    async def handle_by_name(self) -> None:
        """Give one entry to a handler by its name."""
        entry, value = await self._any_entry(), self.chance.choice([None, object()])
        plain = self.handler(entry.queue)
        given: list[Any] = []

        async def handle(metadata: Stamp, data: Any) -> Any:
            verdict = await plain(metadata, data)
            given.append(verdict)
            return verdict if value is None else (verdict, value)

        method = self.spool.with_entry if self.chance.random() < 0.5 else self.spool.try_with_entry
        answer = await method(entry, handle)
        if isinstance(answer, Err):
            if given or not isinstance(answer.error, (EntryNotFound, EntryBusy)):
                self.records.fault("failed", "with_entry", repr(answer))
        elif given and answer.value is not (given[0] if value is None else value):
            self.records.fault("answered", "with_entry", f"{answer} instead of {given[0] if value is None else value}")

    async def expire(self) -> None:
        """Have a hook say what becomes of entries that are too many."""
        queue = self.chance.choice(SHARED)
        retention = Retention(max_count=self.chance.randint(0, 6))
        (await self.spool.expire(queue, retention, before_expiry=self.handler(queue))).unwrap()

    # Readers

    def _end_at_a_moment(self, reader: Any) -> Callable[[], bool]:
        """Stop or drain a reader after a while; return a function that tells whether it has been drained."""
        drained = False

        def drain() -> None:
            nonlocal drained
            drained = True
            reader.drain(self.chance.choice([0, 0.001, 0.005]))

        self.round.later(self.chance.choice([reader.stop, drain]), seconds=self.chance.uniform(0, PATIENCE))
        return lambda: drained

    async def dequeue(self) -> None:
        """Take a few entries, in blocks or not, and leave the reader with the others."""
        async with self.spool.reader(self.chance.choice(SHARED)) as reader:
            for _ in range(self.chance.randint(1, 4)):
                job = None
                with anyio.move_on_after(PATIENCE):
                    method = reader.dequeue if self.chance.random() < 0.5 else reader.dequeue_available
                    job = (await method()).unwrap()
                if job is not None:
                    await self.act(job, in_a_block=self.chance.random() < 0.7)

    async def go_through(self) -> None:
        """Iterate over jobs."""
        async with self.spool.reader(self.chance.choice(SHARED)) as reader:
            with self.blows.striking(self._end_at_a_moment(reader)):
                async for job in reader if self.chance.random() < 0.5 else reader.available():
                    await self.act(job)

    async def iterate(self) -> None:
        """Have handlers work in a pool, in one way or another."""
        queue = self.chance.choice(SHARED)
        retry = self.chance.random() < 0.4
        options: dict[str, Any] = {
            "concurrency": self.chance.choice([1, 1, 2, 4]),
            "prefetch": self.chance.choice([0, 0, 1, 3]),
            "time_limit": self.chance.choice([None, None, 0.002]),
        }
        if retry:
            backoff = Exponential(first=self.chance.choice([0, 0.001]))
            options["retry"] = Retry(attempts=self.round.attempts, backoff=backoff, dead_letter=Mail.FAILED)
        elif self.chance.random() < 0.7:
            options["on_error"] = self._on_error
        wait = self.chance.random() < 0.5
        try:
            async with self.spool.reader(queue) as reader:
                left = self.chance.randint(1, 10)

                def count() -> None:
                    nonlocal left
                    left -= 1
                    if left <= 0:
                        reader.stop()

                if wait or self.chance.random() < 0.3:
                    _ = self._end_at_a_moment(reader)
                method = reader.iter if wait else reader.iter_available
                answer = await method(self.handler(queue, retry=retry, after=count), **options)
                if isinstance(answer, Err):
                    self.records.fault("failed", "iteration", repr(answer))
        except (TimeoutError, BaseExceptionGroup) as error:  # of the time limit, where nothing takes care of it
            group = error if isinstance(error, BaseExceptionGroup) else BaseExceptionGroup("", [error])
            if "on_error" in options or retry or group.split((TimeoutError, Thunder))[1] is not None:
                raise
            raise Thunder from error

    def _on_error(self, metadata: Stamp, _error: Exception) -> Any:
        line = Line(What.ATTEMPT, "release", metadata.life, self.records.turn_of(metadata.life))
        verdict: Any = Release()
        if self.chance.random() < 0.5:
            line = Line(What.ATTEMPT, "save", metadata.life, line.turn, queue=Mail.FAILED.value)
            verdict = Save(Mail.FAILED)
        self.records.write(line)
        self.records.close(line, What.DONE)
        return verdict

    async def send_and_receive(self) -> None:
        """Use a queue as a channel."""
        queue = self.chance.choice(SHARED)
        async with self.spool.channel(queue, max_entries=self.chance.choice([None, 1000])) as (send, receive):
            for _ in range(self.chance.randint(1, 4)):
                if self.chance.random() < 0.5:
                    line, metadata, data = self._new(queue)
                    await self.do(line, functools.partial(self._send, send, metadata, data), self.blows)
                    continue
                received = None
                with anyio.move_on_after(PATIENCE):
                    received = await receive.receive()
                if received is not None:
                    await self._acknowledge(queue, received)

    async def _send(self, send: Any, metadata: Stamp, data: bytes) -> Any:
        await send.send((metadata, data))
        return Ok(_Sent())

    async def _acknowledge(self, queue: Mail, received: Any) -> None:
        turn = Turn(self, queue, received.name, received.metadata)
        async with received:
            try:
                await self.blows.befall(functools.partial(turn.work, received.data, self.blows), 2)
            finally:
                turn.end()
            line = turn.line("remove")
            self.records.write(line)
            self.records.close(line, What.DONE)  # the block ends normally

    async def look(self) -> None:
        """Look at this and that, and recover beside the others."""
        queue = self.chance.choice(SHARED)
        looks: list[Callable[[], Awaitable[Any]]] = [
            lambda: self.spool.entries(queue),
            lambda: self.spool.waiting(queue),
            lambda: self.spool.recover(dry_run=True),
            self.spool.adopt,
        ]
        for look in self.chance.sample(looks, 2):
            (await look()).unwrap()
        # Collecting is nothing special: a name whose file has just been made, and is not locked yet, is collected too.
        recovered = [one for one in (await self.spool.recover()).unwrap() if one.queue is not None]
        if recovered and not self.round.interrupted:
            self.records.fault("recovered", "the spool", f"{recovered}, though nobody had died")

    async def open_another(self) -> None:
        """Open the spool a second time, and enqueue through it."""
        async with await self.round.open() as other:
            line, metadata, data = self._new(Mail.SEND)
            await self.do(line, lambda: other.enqueue(Mail.SEND, metadata, data), self.blows)


class _Sent:
    """What a channel says of an entry that it sent: nothing."""

    name = ""
