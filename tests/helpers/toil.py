"""Processes that enqueue and work off what they can in a spool on a server, whatever happens, and keep a ledger.

A line is written before each attempt, and one with the answer after it. So a process may be killed at any moment. The
ledgers and what is in the tables at the end must agree: what was acknowledged is there, or was removed, once.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import random
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.children import Child
from helpers.losing import Open
from helpers.schemas import until
from helpers.stores import OLD, QUEUES, nothing
from trio_multispool.errors import DurabilityUnknown, SpoolError
from trio_multispool.storage.postgres.store import PostgresStorage
from trio_multispool.storage.requests import NewEntry, Releasing, Removing, Saving
from trio_multispool.storage.source import Look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from helpers.schemas import Tables
    from trio_multispool.storage.postgres.patience import Patience

AT_A_TIME = 8
MUCH = bytes(300_000)
TASKS = 2
"""So many threads enqueue in a process, and so many work off."""

ENOUGH_IS_WAITING = 400
"""Who finds so many entries enqueues nothing more."""


HELD = "held."
"""How the names of entries begin that a `Holder` has in hand: they are in nobody's ledger."""


class Toil:
    """What one process does, in threads, until it is told to stop."""

    def __init__(self, storage: PostgresStorage, ledger: Path, seed: str) -> None:
        """Begin a ledger."""
        self._storage = storage
        self._seed = seed
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._goes_on, args=(what, random.Random(f"{seed} {what.__name__} {number}")))
            for what in (self._enqueue, self._work_off)
            for number in range(TASKS)
        ]
        self._sources = {queue: storage.source(queue, sorts_last=True) for queue in QUEUES[:2]}
        self._numbers = iter(range(10**9))
        self.crashed: list[BaseException] = []

    def begin(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """End, once everything that was begun has been answered."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        os.close(self._ledger)
        assert not self.crashed, self.crashed

    def _write(self, *words: Any) -> None:
        os.write(self._ledger, json.dumps(words).encode() + b"\n")

    def _goes_on(self, act: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            while not self._over.is_set():
                act(chance)
        except BaseException as error:  # noqa: BLE001  # told at the end
            self.crashed.append(error)
            self._write("crashed", repr(error))

    def _enqueue(self, chance: random.Random) -> None:
        """Enqueue some together, or one under a name that is reserved; now and then with much data, or to wait."""
        storage = self._storage
        try:
            if storage.count() > ENOUGH_IS_WAITING:
                _ = self._over.wait(0.05)
                return
        except SpoolError:
            return
        names = [f"{self._seed}.{next(self._numbers)}" for _ in range(chance.randint(1, AT_A_TIME))]
        due_at = storage.now() + 0.05 if chance.random() < 0.2 else None
        data = MUCH if chance.random() < 0.02 else b"little"
        self._write("enqueues", names)
        try:
            unique = chance.random() < 0.8
            reserved = [storage.reserve(name, unique=unique) for name in names]
        except SpoolError as error:
            self._answer("refused", names, error)
            return
        wanted = [NewEntry(each, QUEUES[0], OLD, data, None, nothing, due_at=due_at) for each in reserved]
        for each, failure in zip(reserved, storage.enqueue_together(wanted), strict=True):
            if failure is None:
                self._write("enqueued", [each.name])
            else:
                self._answer("refused", [each.name], failure)
                each.abandon()

    def _answer(self, otherwise: str, names: Sequence[str], error: BaseException) -> None:
        unknown = isinstance(error, DurabilityUnknown)
        self._write("unknown" if unknown else otherwise, [*names], type(error).__name__)

    def _work_off(self, chance: random.Random) -> None:
        """Take some, and settle them: most are removed, some moved, some given back."""
        source = self._sources[chance.choice(QUEUES[:2])]
        most = chance.randint(1, AT_A_TIME)
        how: dict[str, Any] = {"gate": Open(), "stopped": lambda: False, "before_commit": nothing}
        try:
            found = source.claim(Look(None, waits=True), lambda: most, **how)
        except SpoolError as error:
            self._write("not taken", type(error).__name__)
            _ = self._over.wait(0.02)
            return
        if not found.claims:
            _ = self._over.wait(0.01)
            return
        settlements: list[Any] = []
        for claim, _ in found.claims:
            match chance.random():
                case share if share < 0.7:
                    settlements.append(Removing(claim, None, nothing))
                case share if share < 0.85:
                    settlements.append(Saving(claim, QUEUES[1], None, None, nothing))
                case _:
                    settlements.append(Releasing(claim))
        self._write("removes", [each.claim.name for each in settlements if isinstance(each, Removing)])
        for each, failure in zip(settlements, self._storage.settle(settlements), strict=True):
            removes, name = isinstance(each, Removing), each.claim.name
            if failure is None:
                self._write("removed" if removes else "moved", [name])
                continue
            self._answer("not removed" if removes else "not moved", [name], failure)
            each.claim.abandon()


def toil(  # noqa: PLR0913, PLR0917  # what a child is given, in texts
    parent: Any, url: str, ledger: str, seed: str, patience: str, namespace: str
) -> None:
    """Toil in a child process, until the test says so."""
    import contextlib
    import json
    from pathlib import Path

    from helpers.namespaces import enter
    from helpers.stores import QUEUES
    from helpers.toil import Toil
    from trio_multispool.storage.postgres.patience import Patience
    from trio_multispool.storage.postgres.store import PostgresStorage

    if namespace:
        enter(namespace)
    with contextlib.closing(PostgresStorage.open(url, QUEUES, patience=Patience(**json.loads(patience)))) as storage:
        work = Toil(storage, Path(ledger), seed)
        work.begin()
        parent.say("begun", storage._links.owner)
        while parent.hear() != ["end"]:
            pass
        work.end()
        keeper = storage._context.keeper
        assert keeper is not None
        recovered = [name for name, _ in keeper.take_recovered(None)]
    parent.say("ended", recovered)


def hold(  # noqa: PLR0913, PLR0917  # as above
    parent: Any, url: str, entries: int, patience: str, namespace: str, called: str
) -> None:
    """Have entries in hand in a child process, and settle one of them whenever the test says so."""
    import contextlib
    import json
    import time

    from helpers.namespaces import enter
    from helpers.schemas import until
    from helpers.stores import QUEUES, claim, enqueue, remove
    from helpers.toil import HELD
    from trio_multispool import SpoolError
    from trio_multispool.storage.postgres.patience import Patience
    from trio_multispool.storage.postgres.store import PostgresStorage

    if namespace:
        enter(namespace)
    with contextlib.closing(PostgresStorage.open(url, QUEUES, patience=Patience(**json.loads(patience)))) as storage:
        names = [f"{HELD}{called}{number}" for number in range(entries)]
        for name in names:
            enqueue(storage, QUEUES[2], name)
        held = [claim(storage, QUEUES[2], name) for name in names]
        enqueue(storage, QUEUES[2], f"{HELD}{called}durable")  # and all before it
        remove(storage, claim(storage, QUEUES[2], f"{HELD}{called}durable"))
        parent.say("holding", storage._links.owner)
        for [word] in iter(parent.hear, None):
            if word == "await loss":
                until(lambda: held[-1].lost, "it is lost", every=0.001)
                parent.say(time.monotonic())
                continue
            claimed = held.pop()
            try:
                remove(storage, claimed)
            except SpoolError as error:
                parent.say(repr(error))
            else:
                parent.say(None)


class Holder:
    """A process that has entries in hand; put `with` around it."""

    ENTRIES = 6

    def __init__(self, url: str, patience: Patience, namespace: str = "", *, called: str = "") -> None:
        """Start it, perhaps at another host; its entries are called after it, so that there may be several."""
        self.child = Child(hold, url, self.ENTRIES, json.dumps(dataclasses.asdict(patience)), namespace, called)
        _, self.owner = self.child.hear()
        self.left = self.ENTRIES

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, if it is still there."""
        self.child.__exit__()

    def settle_all(self) -> set[str | None]:
        """Have it settle all that it has left."""
        answers: set[str | None] = set()
        while self.left:
            answers.add(self.settle_one())
        return answers

    def settle_one(self) -> str | None:
        """Have it settle an entry; return what it was told, if that was not done."""
        self.child.tell("settle")
        self.left -= 1
        [answer] = self.child.hear()
        told: str | None = answer
        return told


class Account(NamedTuple):
    """What the ledgers and the tables say of each other."""

    enqueued: int
    removed: int
    unknown: int
    """Of how many nobody was told whether they were enqueued or removed."""
    left: int
    lost: int
    """How often somebody was told that an entry had been taken away from him."""
    refused: collections.Counter[str]
    """How often something was refused, by its reason."""
    faults: list[str]

    def counts(self) -> dict[str, int]:
        """Return what counts for a proof."""
        return {
            "entries_acknowledged": self.enqueued,
            "removals_acknowledged": self.removed,
            "unknown": self.unknown,
            "bad": len(self.faults),
        }


class Workers:
    """Processes that toil; put `with` around it."""

    def __init__(self, folder: Path, tables: Tables, patience: Patience) -> None:
        """Begin with none."""
        self._folder = folder
        self._tables = tables
        self._patience = json.dumps(dataclasses.asdict(patience))
        self._stack = contextlib.ExitStack()
        self._ledgers: list[Path] = []
        self.running: dict[int, Child] = {}
        """By owner."""
        self.recovered: list[str] = []
        """What those that have ended put back of others."""

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill whoever still runs."""
        self._stack.close()

    def start(self, url: str, namespace: str = "") -> int:
        """Start one; return its owner."""
        ledger = self._folder / f"ledger {len(self._ledgers)}"
        self._ledgers.append(ledger)
        child = self._stack.enter_context(Child(toil, url, ledger, f"w{len(self._ledgers)}", self._patience, namespace))
        _, owner = child.hear()
        self.running[owner] = child
        return int(owner)

    def kill(self, owner: int) -> None:
        """Kill the process of an owner; the server need not know it yet."""
        process = self.running.pop(owner).process
        process.kill()
        process.wait()

    def progress(self) -> int:
        """Return how much has been written down."""
        return sum(ledger.stat().st_size for ledger in self._ledgers if ledger.exists())

    def go_on(self, lines: int = 20) -> None:
        """Wait until they have done something more."""
        since = self.progress()
        until(lambda: self.progress() > since + lines * 40, "somebody does something")

    def end(self) -> None:
        """Have them all end."""
        for child in self.running.values():
            child.tell("end")
        for child in self.running.values():
            word, recovered = child.hear()
            assert word == "ended"
            self.recovered += recovered
            child.end()
        self.running.clear()

    def _lines(self) -> Iterator[list[Any]]:
        for ledger in self._ledgers:
            whole, _, _ = ledger.read_bytes().rpartition(b"\n")
            yield from map(json.loads, whole.splitlines())

    def account(self) -> Account:
        """Compare all ledgers with the tables, in which nobody may be at work."""
        told: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        refused: collections.Counter[str] = collections.Counter()
        faults: list[str] = []
        for what, about, *why in self._lines():
            if what == "crashed":
                faults.append(f"a worker has crashed: {about}")
            elif what == "not taken":
                refused[f"{what}: {about}"] += 1
            else:
                told[what].update(about)
                if why:
                    refused[f"{what}: {why[0]}"] += len(about)
        left = {name for name in self._tables.names() if not name.startswith(HELD)}
        removed, open_removals = told["removed"], told["removes"] - told["removed"] - told["not removed"]
        unknown = set(told["unknown"]) | set(told["enqueues"] - told["enqueued"] - told["refused"])
        faults += [f"{name} is lost" for name in set(told["enqueued"]) - left - set(removed) - set(open_removals)]
        faults += [f"{name} was removed {times} times" for name, times in removed.items() if times > 1]
        faults += [f"{name} was removed, and is there" for name in left & set(removed)]
        faults += [
            f"{name} was refused, and made after all"
            for name in set(told["refused"]) - unknown - set(told["enqueued"])
            if name in left or name in removed
        ]
        faults += [f"{name} is there, and nobody has enqueued it" for name in left - set(told["enqueues"])]
        faults += [f"{name} belongs to {owner}" for name, owner in self._tables.held()]
        if self._tables.stray_chunks():
            faults.append("parts of data are left")
        expected = {"OwnershipLost", "StoreUnreachable", "DurabilityUnknown", "OutOfSpace"}
        faults += [f"{times} times {each}" for each, times in refused.items() if each.split(": ")[1] not in expected]
        lost = sum(times for each, times in refused.items() if each.endswith(": OwnershipLost"))
        return Account(
            len(told["enqueued"]), len(removed), len(unknown | set(open_removals)), len(left), lost, refused, faults
        )


def settle_down(url: str, tables: Tables, patience: Patience) -> list[str]:
    """Recover everything, once all have ended; return what was put back. All counts agree then."""
    with contextlib.closing(PostgresStorage.open(url, QUEUES, patience=patience, recover=False)) as storage:
        put_back: list[str] = []

        def is_over() -> bool:
            put_back.extend(each.name for each in storage.recover() if not isinstance(each, SpoolError))
            _ = list(storage.recover_all())
            return not tables.held()

        until(is_over, "nobody has anything any more")
        keeper = storage._context.keeper
        assert keeper is not None
        assert (
            storage.count() == sum(storage.depths().values()) == len(tables.names()) == len(list(storage.inventory()))
        )
        assert not tables.names("cq")
        return put_back
