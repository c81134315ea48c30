"""What clients do to make entries, and to change those where they are that nobody else takes."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

from cancelling.records import content, notes_of
from cancelling.workers import ALONE, KEYS, LATER, SHARED, TURNS, Worker
from helpers.ledger import Line, What, stamp
from helpers.spools import Mail
from trio_multispool import (
    EntryBusy,
    NameTaken,
    Ok,
    Use,
)


class Maker(Worker):
    """A worker that makes entries."""

    async def enqueue(self) -> None:
        """Enqueue one entry, under a name of some kind."""
        queue, kind = self.chance.choice(SHARED), self.chance.choice(["make", "use", "remember", "key", "absent"])
        own = f"own-{self._number}-{self._lives}"
        name: Any = None
        match kind:
            case "use":
                name = Use(own)
            case "remember":
                name = Use(own, remember=60)
            case "key" | "absent":
                name = Use(self.chance.choice(KEYS))
        line, metadata, data = self._new(queue, "" if name is None else name.name)
        method = self.spool.enqueue_if_absent if kind == "absent" else self.spool.enqueue
        options = {"name": name, "not_before": self.chance.choice(LATER), "durability": self.level()}
        expected = (NameTaken, EntryBusy) if kind in ("key", "absent") else ()
        await self.do(line, lambda: method(queue, metadata, data, **options), self.blows, expected=expected)

    async def enqueue_many(self) -> None:
        """Enqueue several entries: all of them, or none if it was cancelled."""
        queue = self.chance.choice(SHARED)
        several = [self._new(queue) for _ in range(self.chance.randint(1, 6))]
        for line, _, _ in several:
            self.records.write(line)
        items = [(metadata, data) for _, metadata, data in several]
        names = [Use(f"many-{line.life}") for line, _, _ in several] if self.chance.random() < 0.5 else None
        try:
            answers = await self.spool.enqueue_many(queue, items, names=names, durability=self.level())
        except BaseException as error:
            what = What.DONE if self.records.happened("enqueue", error) else What.REFUSED
            self.blows.noted += notes_of(error)
            for line, _, _ in several:
                self.records.close(line, what)
            raise
        for (line, _, _), answer in zip(several, answers, strict=True):
            done = isinstance(answer, Ok)
            self.records.close(line, What.DONE if done else What.FAILED, why="" if done else repr(answer))

    async def enqueue_reserved(self) -> None:
        """Reserve a name, and use it, or not; what was cut short, and did not happen, can be done again."""
        reserved = (await self.spool.reserve_name()).unwrap()
        async with reserved:
            if self.chance.random() < 0.3:
                return
            queue, told = self.chance.choice(SHARED), list[str]()

            async def enqueue() -> None:
                line, metadata, data = self._new(queue, reserved.name)
                told.append(line.life)
                await self.do(line, lambda: self.spool.enqueue(queue, metadata, data, name=Use(reserved)), self.blows)

            await self.blows.befall(enqueue, 2)
            if reserved._usable:
                await enqueue()

    async def withdraw(self) -> None:
        """Cancel an enqueue natively when its thread is about to write: it is withdrawn, for it has not committed."""
        loop, told = asyncio.get_running_loop(), threading.Event()
        line, metadata, data = self._new(self.chance.choice(SHARED))
        content, struck = f'"life":"{line.life}"'.encode(), list[bool]()

        def strike() -> None:
            struck.append(task.cancel())
            wait(TURNS)

        def wait(turns: int) -> None:
            if turns:
                loop.call_soon(wait, turns - 1)
            else:
                told.set()

        def hold() -> None:
            loop.call_soon_threadsafe(strike)
            told.wait(timeout=10)

        self.round.calls.before_writing[content] = hold
        with self.blows.striking(lambda: True, natively=True):
            enqueue = functools.partial(self.spool.enqueue, Mail(line.queue), metadata, data)
            task = asyncio.ensure_future(self.do(line, enqueue, None))
            try:
                await self.blows.end_of(task, [])
            finally:
                self.round.calls.before_writing.pop(content, None)
        if struck == [True] and self.records.has_happened(line.life):
            self.records.fault("not withdrawn", line.life, "an enqueue that was cancelled before it wrote anything")

    # Without owning

    async def change_alone(self) -> None:
        """Make an entry that nobody takes, and change it where it is."""
        name = f"alone-{self._number}-{self._lives}"
        line, metadata, data = self._new(ALONE, name)
        answer = await self.do(line, lambda: self.spool.enqueue(ALONE, metadata, data, name=Use(name)), self.blows)
        entry = answer.unwrap()
        for number in range(1, self.chance.randint(1, 4)):
            await self.blows.befall(functools.partial(self._change, entry, line.life, number), 2)
            (await entry.direct.contents()).unwrap()
            (await entry.stat()).unwrap()
        if self.chance.random() < 0.5:
            self.records.left_to_recovery.add(name)
            remove = Line(What.ATTEMPT, "remove", line.life, 9)
            await self.do(remove, lambda: entry.direct.remove(durability=self.level()), self.blows)

    async def _change(self, entry: Any, life: str, number: int) -> None:
        version = f"direct {number}"
        if self.chance.random() < 0.5:
            line = Line(What.ATTEMPT, "data save", life, number, data=version)
            new = content(life, version, large=self.is_large())
            await self.do(line, lambda: entry.direct.data_file.save(new, durability=self.level()), self.blows)
        else:
            line = Line(What.ATTEMPT, "save", life, number, queue=ALONE.value, metadata=version)
            await self.do(line, lambda: entry.direct.save(stamp(life, version), durability=self.level()), self.blows)
