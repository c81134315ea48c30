"""A spool for one interleaving: what its owners do to it, what is written down of that, and how it is judged."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import msgspec

from helpers.interleaving import Owners
from helpers.ledger import (
    FIRST,
    TORN,
    Fault,
    Line,
    Stamp,
    What,
    check,
    data_version_of,
    found_in,
    stamp,
    stamped,
    version_of,
)
from helpers.spools import state_of
from helpers.stores import (
    claim,
    enqueue,
    make_store,
    nothing,
    read_data,
    release,
    remove,
    replace_data,
    save,
    sweep,
    try_claim,
)
from trio_multispool import DataNotFound, EntryBusy, NameTaken, Unavailable
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.requests import Releasing, Removing, Saving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from helpers.interleaving import Owner
    from trio_multispool.storage.directory.store import DirectoryStorage

QUEUES = ("retry", "send")


class World:
    """A spool for one schedule, and all that is written down about it."""

    def __init__(self, path: Path) -> None:
        """Make it, empty."""
        self.path = path
        self.ledger: list[Line] = []
        self._turns = itertools.count(1)
        self._lives = itertools.count(1)
        self._at_work: list[tuple[Owner | None, Any]] = []
        self.storage = make_store(path, queues=QUEUES)

    def write(self, what: What, operation: str, life: str, turn: int = 0, **words: str) -> None:
        """Write a line down."""
        self.ledger.append(Line(what, operation, life, turn, **words))

    @contextlib.contextmanager
    def telling(self, operation: str, life: str, turn: int = 0, **words: str) -> Iterator[None]:
        """Write down what is tried, and what comes of it. An owner that is killed writes nothing more."""
        self.write(What.ATTEMPT, operation, life, turn, **words)
        try:
            yield
        except (NameTaken, EntryBusy) as error:
            expected = operation == "enqueue"
            self.write(What.REFUSED if expected else What.FAILED, operation, life, turn, why=repr(error))
        except Exception as error:  # noqa: BLE001  # that is the finding
            self.write(What.FAILED, operation, life, turn, why=repr(error))
        else:
            self.write(What.DONE, operation, life, turn, **words)

    def queue_of(self, deed: Deed) -> str:
        """Say where an entry is available at this moment; otherwise, where it is to be looked for in vain."""
        return next((queue for queue in QUEUES if (self.path / queue / deed.name).exists()), deed.queue)

    def enqueue(self, storage: DirectoryStorage, queue: str, name: str) -> None:
        """Begin a life, if the name is to be had."""
        life = f"{next(self._lives)}"
        metadata, data = msgspec.json.encode(stamp(life, FIRST)), stamped(life, FIRST)
        with self.telling("enqueue", life, name=name, queue=queue):
            enqueue(storage, queue, name, metadata, data)

    def take(self, owner: Owner | None, storage: DirectoryStorage, queue: str, name: str) -> Turn | None:
        """Check an entry out, and begin a turn; nobody else may be at work on it."""
        claimed = try_claim(storage, queue, name)
        if isinstance(claimed, Unavailable):
            return None
        life = msgspec.json.decode(claimed.metadata, type=Stamp).life
        turn = Turn(self, storage, claimed, life, next(self._turns))
        if any(
            other.name == name and other.state is State.CHECKED_OUT and (who is None or not who.dead)
            for who, other in self._at_work
        ):
            self.write(What.TWICE, "", life, turn.number)
        self._at_work.append((owner, claimed))
        if owner is not None:
            owner.rest()
        turn.look()
        return turn

    def judge(self) -> list[Fault]:
        """Recover, and say what is wrong; then take everything out, and look again."""
        list(self.storage.recover())
        sweep(self.storage)
        found, faults = found_in(state_of(self.path))
        faults += check([self.ledger], found).faults
        with contextlib.suppress(AssertionError) if faults else contextlib.nullcontext():
            for queue in QUEUES:
                for name in self.storage.names(queue):
                    remove(self.storage, claim(self.storage, queue, name))
        return faults + [Fault("left over", "the empty spool", fault) for fault in state_of(self.path).faults()]


@dataclasses.dataclass
class Turn:
    """One owner's time with one entry."""

    world: World
    storage: DirectoryStorage
    claim: Any
    life: str
    number: int

    def look(self) -> None:
        """Write down what is seen."""
        metadata = msgspec.json.decode(self.claim.metadata, type=Stamp)
        try:
            data = data_version_of(self.life, read_data(self.storage, self.claim.name))
        except DataNotFound:
            data = TORN
        seen = {"metadata": version_of(self.life, metadata), "data": data}
        place = {"queue": self.claim.queue, "name": self.claim.name}
        self.world.write(What.TAKEN, "", self.life, self.number, **place, **seen)

    def telling(self, operation: str, **words: str) -> contextlib.AbstractContextManager[None]:
        """Write down what is tried in this turn."""
        return self.world.telling(operation, self.life, self.number, **words)

    def rewrite(self) -> None:
        """Replace the data."""
        with self.telling("data save", data=f"{self.number}"):
            replace_data(self.storage, self.claim.name, self.claim, stamped(self.life, f"{self.number}"))

    def settle(self, how: str, queue: str) -> None:
        """Settle."""
        version = f"{self.number}"
        match how:
            case "save":
                with self.telling("save", queue=queue, metadata=version):
                    save(self.storage, self.claim, queue, msgspec.json.encode(stamp(self.life, version)))
            case "move":
                with self.telling("save", queue=queue):
                    save(self.storage, self.claim, queue, None)
            case "remove":
                with self.telling("remove"):
                    remove(self.storage, self.claim)
            case "release":
                with self.telling("release"):
                    release(self.storage, self.claim)

    def settling(self, how: str, queue: str) -> Any:
        """Say how it is to be settled together with others."""
        match how:
            case "save" | "move":
                version = f"{self.number}"
                raw = msgspec.json.encode(stamp(self.life, version)) if how == "save" else None
                return Saving(self.claim, queue, raw, None, nothing)
            case "remove":
                return Removing(self.claim, None, nothing)
            case _:
                return Releasing(self.claim)


# What an owner may do. Each gets the world, the owner, and a name, two queues and a way to settle to do it with


@dataclasses.dataclass(frozen=True)
class Deed:
    """One thing that an owner does."""

    kind: str
    name: str
    queue: str
    how: str
    target: str

    def do(self, world: World, owner: Owner) -> None:
        """Do it."""
        DEEDS[self.kind](self, world, owner)


def _enqueue(deed: Deed, world: World, owner: Owner) -> None:
    world.enqueue(owner.storage, deed.queue, deed.name)


def _work(deed: Deed, world: World, owner: Owner) -> None:
    turn = world.take(owner, owner.storage, world.queue_of(deed), deed.name)
    if turn is not None:
        turn.settle(deed.how, deed.target)


def _rewrite(deed: Deed, world: World, owner: Owner) -> None:
    turn = world.take(owner, owner.storage, world.queue_of(deed), deed.name)
    if turn is not None:
        turn.rewrite()
        turn.settle(deed.how, deed.target)


def _hold(deed: Deed, world: World, owner: Owner) -> None:
    """Take it, and never settle it: the owner's end lets go of it."""
    world.take(owner, owner.storage, world.queue_of(deed), deed.name)


def _read(deed: Deed, world: World, owner: Owner) -> None:
    """Do as a reader does: recover, list, take the first that is to be had."""
    owner.storage.recover(deed.queue)
    for name in owner.storage.names(deed.queue):
        turn = world.take(owner, owner.storage, deed.queue, name)
        if turn is not None:
            turn.settle(deed.how, deed.target)
            return


def _recover(deed: Deed, world: World, owner: Owner) -> None:
    owner.storage.recover()


def _sweep(deed: Deed, world: World, owner: Owner) -> None:
    sweep(owner.storage)


def _settle_both(deed: Deed, world: World, owner: Owner) -> None:
    """Take two entries, and settle them together."""
    turns = [world.take(owner, owner.storage, deed.queue, name) for name in Owners.names]
    held = [turn for turn in turns if turn is not None]
    words = {"save": ("save", {"queue": deed.target}), "move": ("save", {"queue": deed.target})}
    lines: list[Line] = []
    for turn in held:
        operation, place = words.get(deed.how, (deed.how, {}))
        version = {"metadata": f"{turn.number}"} if deed.how == "save" else {}
        lines.append(Line(What.ATTEMPT, operation, turn.life, turn.number, **place, **version))
    world.ledger.extend(lines)
    outcomes = owner.storage.settle([turn.settling(deed.how, deed.target) for turn in held])
    for outcome in outcomes:
        if outcome is not None and not isinstance(outcome, Exception):
            raise outcome
    for line, outcome in zip(lines, outcomes, strict=True):
        what, why = (What.DONE, "") if outcome is None else (What.FAILED, repr(outcome))
        world.ledger.append(msgspec.structs.replace(line, what=what, why=why))


DEEDS: dict[str, Callable[[Deed, World, Owner], None]] = {
    "enqueue": _enqueue,
    "work": _work,
    "rewrite": _rewrite,
    "hold": _hold,
    "read": _read,
    "recover": _recover,
    "sweep": _sweep,
    "settle both": _settle_both,
}

# What lies there when the owners begin


def _available(world: World, name: str) -> None:
    world.enqueue(world.storage, "send", name)


def _of_the_dead(world: World, name: str) -> None:
    """Leave an entry checked out, by an owner who died with metadata and data half written."""
    _available(world, name)
    turn = world.take(None, world.storage, "send", name)
    assert turn is not None
    turn.claim.abandon()
    for temporary in (name, f".data.{name}"):
        (world.path / ".tmp" / temporary).write_bytes(b"half")
    world._at_work.clear()


def _half_made(world: World, name: str) -> None:
    """Leave what an enqueue leaves that was killed before its commit."""
    world.storage.reserve(name).abandon()
    for directory in (".data", ".tmp"):
        (world.path / directory / name).write_bytes(b"half-made")


BEGINNINGS: dict[str, Callable[[World, str], None]] = {
    "nothing": lambda world, name: None,
    "available": _available,
    "of the dead": _of_the_dead,
    "half made": _half_made,
}


def program_of(world: World, deeds: list[Deed]) -> Callable[[Owner], None]:
    """Return what an owner does."""

    def program(owner: Owner) -> None:
        for each in deeds:
            each.do(world, owner)
            owner.rest()

    return program
