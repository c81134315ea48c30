"""What every client does: write down what it tries and what it was told, and work on an entry in a turn of its own."""

from __future__ import annotations

import collections
import datetime
import functools
import traceback
from typing import TYPE_CHECKING, Any, Final

from cancelling.blows import Blows
from cancelling.records import content, notes_of, version_in
from helpers.ledger import FIRST, Line, What, stamp, version_of
from helpers.spools import Mail
from trio_multispool import (
    UNCHANGED,
    Durability,
    Err,
    Release,
    Remove,
    Save,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from cancelling.rounds import Round
    from helpers.ledger import Stamp

KEYS: Final = [f"key-{number}" for number in range(6)]
"""Names that all clients use."""
ALONE: Final = Mail.FAILED
"""The queue of entries that nobody else takes, changed where they are."""
SHARED: Final = [Mail.SEND, Mail.RETRY]
"""The queues that all clients read."""
LATER: Final = [None, None, None, 0, 0.002, datetime.timedelta(days=1)]
"""Until when an entry waits."""
LEVELS: Final = [None, None, Durability.PROCESS, Durability.POWER]
TURNS: Final = 5
"""In how many turns of its loop a task that is cancelled has told its thread so."""
PATIENCE: Final = 0.01
"""How long a client waits for an entry, in seconds."""


def told(error: BaseException) -> str:
    """Return an exception with its traceback."""
    return "".join(traceback.format_exception(error))


class Turn:
    """One owner's time with one entry."""

    def __init__(self, client: Worker, queue: Mail, name: str, metadata: Stamp) -> None:
        """Begin it."""
        self.life = metadata.life
        self.number = client.records.begin_turn(self.life, name)
        self._client = client
        self._queue, self._name, self._metadata = queue, name, metadata

    def line(self, operation: str, **words: str) -> Line:
        """Return a line of this turn."""
        return Line(What.ATTEMPT, operation, self.life, self.number, **words)

    def end(self) -> None:
        """Stop working on the entry. Idempotent."""
        self._client.records.end_turn(self._name, self.number)

    async def work(self, data: Any, blows: Blows | None) -> None:
        """Look at the entry, and change its data, now and then; each step may be cut short."""
        chance = self._client.chance
        if chance.random() < 0.6:
            found = (await data.load()).unwrap()
            words = {"metadata": version_of(self.life, self._metadata), "data": version_in(self.life, found)}
            place = {"name": self._name, "queue": self._queue.value}
            self._client.records.write(Line(What.TAKEN, "", self.life, self.number, **place, **words))
        for step in range(chance.choice([0, 0, 1, 2])):
            if chance.random() < 0.3:
                (await data.progress(chance.random(), "at work")).unwrap()
                continue
            version = f"{self.number}.{step}"
            new = content(self.life, version, large=self._client.is_large())
            line = self.line("data save", data=version)
            await self._client.do(line, functools.partial(data.save, new, durability=self._client.level()), blows)

    def verdict(self) -> tuple[Line, Any]:
        """Choose how to settle the entry; return the line that says so, too."""
        chance, new = self._client.chance, str(self.number)
        queue = chance.choice(SHARED)
        match chance.choice(["save", "save", "save unchanged", "remove", "release"]):
            case "remove":
                return self.line("remove"), Remove()
            case "release":
                return self.line("release"), Release()
            case "save unchanged":
                return self.line("save", queue=queue.value), Save(queue, UNCHANGED, chance.choice(LATER))
            case _:
                line = self.line("save", queue=queue.value, metadata=new)
                return line, Save(queue, stamp(self.life, new), chance.choice(LATER))


class Worker:
    """One task: what it does it chooses at random."""

    def __init__(self, of: Round, number: int, chance: random.Random, *, in_main_task: bool) -> None:
        """Begin with nothing done."""
        self.round, self.records, self.chance = of, of.records, chance
        self.blows = Blows(of, chance, in_main_task=in_main_task)
        self._is_main = in_main_task
        self._number = number
        self._lives = 0
        self._alone: collections.Counter[str] = collections.Counter()

    @property
    def spool(self) -> Any:
        """The spool."""
        return self.round.spool

    def level(self) -> Durability | None:
        """Choose a level."""
        return self.chance.choice(LEVELS)

    def is_large(self) -> bool:
        """Choose how much data it is to be."""
        return self.chance.random() < 0.1

    async def do(
        self,
        line: Line,
        call: Callable[[], Awaitable[Any]],
        blows: Blows | None,
        *,
        expected: tuple[type[Exception], ...] = (),
    ) -> Any:
        """Do something between two lines; return its answer. What comes through is noted for the blows around it."""
        self.records.write(line)
        try:
            answer = await call()
        except BaseException as error:
            happened = self.records.happened(line.operation, error)
            self.records.close(line, What.DONE if happened else What.REFUSED, why=f"{error!r} {notes_of(error)}")
            if happened and not (self.blows if blows is None else blows).is_struck(natively=True):
                self.records.fault("not undone", line.operation, f"a scope cancelled what happened: {notes_of(error)}")
            if blows is not None:
                blows.noted += notes_of(error)
            if isinstance(error, Exception):
                self.records.fault("raised", line.operation, repr(error))
            raise
        if isinstance(answer, Err) and not isinstance(answer.error, expected):
            self.records.close(line, What.FAILED, why=repr(answer.error))
        elif isinstance(answer, Err) or (line.operation == "enqueue" and answer.value is None):
            self.records.close(line, What.REFUSED, why="taken")
        elif line.operation == "enqueue":
            self.records.close(line, What.DONE, name=answer.value.name)
        else:
            self.records.close(line, What.DONE)
        return answer

    def _new(self, queue: Mail, name: str = "") -> tuple[Line, Stamp, bytes]:
        self._lives += 1
        life = f"{self._number}.{self._lives}"
        line = Line(What.ATTEMPT, "enqueue", life, name=name, queue=queue.value)
        return line, stamp(life, FIRST), content(life, FIRST, large=self.is_large())
