"""What becomes of a tree that power loss has left: it is rebuilt, loaded, recovered, looked at and used.

What is found depends on the tree alone, and not on how it came about, so every distinct tree is rebuilt once in the
life of the process. Whether it is what must be found is then judged for each point at which that tree may be on disk.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crash_states.disk import KEYS, build
from crash_states.scene import ANY, KEY_OF, LOADS, MADE_AGAIN, NOTES_OF, QUEUES, SPOOL, WHERE
from helpers.calls import WithoutSyncs
from helpers.spools import state_of
from helpers.stores import available, nothing, release, remove, sweep, waiting
from trio_multispool import NameTaken, NotASpool, SpoolError
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory.claims import DirectoryClaim
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from crash_states.disk import Tree
    from crash_states.enumeration import Expected, States
    from crash_states.scene import Found
    from helpers.spools import State as SpoolState


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was found after recovery."""

    spool: str
    entries: dict[str, list[Found]]
    """By name, everywhere that it is."""
    notes: dict[str, bytes]
    """By name, what is noted about entries."""
    remembered: frozenset[str]
    """The names that are not to be had again, and those of entries of which it is known that they are not to be."""
    faults: tuple[str, ...]
    """What contradicts a spool at rest after recovery, and what could not be done with it."""


_outcomes: dict[tuple[tuple[str, ...], Tree], Outcome] = {}
"""By the queues of the program that loads the tree, and the tree."""


@dataclasses.dataclass
class Tally:
    """How many distinct states a case had, and which of them were bad."""

    states: int = 0
    bad: list[tuple[Tree, str]] = dataclasses.field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add up."""
        self.states += other.states
        self.bad += other.bad


class Checker:
    """Rebuilds trees, each once, in a directory of its own."""

    def __init__(self, base: Path, *, queues: tuple[str, ...] = QUEUES) -> None:
        """Use an empty directory; the spool is loaded with these queues."""
        self._base = base
        self._queues = queues

    def check(self, states: States) -> Tally:
        """Examine all, and judge."""
        tally = Tally(len(states))
        tally.bad.extend(self.bad(states))
        return tally

    def bad(self, states: States) -> Iterator[tuple[Tree, str]]:
        """Examine one after the other, and yield those that are bad, with what is wrong."""
        for tree, all_expected in states.items():
            outcome = self.outcome(tree)
            wrong = next(filter(None, (judge(outcome, expected) for expected in all_expected)), None)
            if wrong is not None:
                yield tree, wrong

    def outcome(self, tree: Tree) -> Outcome:
        """Return what becomes of a tree."""
        found = _outcomes.get((self._queues, tree))
        if found is None:
            directory = self.rebuilt(tree)
            try:
                found = _outcomes[self._queues, tree] = examine(directory / WHERE, self._queues, _names(tree))
            finally:
                shutil.rmtree(directory)
        return found

    def rebuilt(self, tree: Tree) -> Path:
        """Return a new directory that holds a tree."""
        directory = Path(tempfile.mkdtemp(dir=self._base))
        build(tree, directory)
        return directory


def _names(tree: Tree) -> list[str]:
    return sorted(
        {name for path, content in tree if content is not None and not (name := os.path.basename(path)).startswith(".")}
    )


def examine(path: Path, queues: tuple[str, ...], names: Iterable[str]) -> Outcome:
    """Load the spool, recover and sweep, look at every entry, and then use it, remove it, and use its name again."""
    store: DirectoryStorage | None = None
    spool = LOADS
    try:
        spool = LOADS if loads(path, queues) else MADE_AGAIN
        store = DirectoryStorage.open(path, queues, create=spool == MADE_AGAIN, calls=WithoutSyncs())
        _ = store.recover()
        _ = sweep(store)
        state = state_of(path)
        entries = _entries(state)
        # A reservation that power loss took is made again when somebody wants the entry.
        faults = [fault for fault in state.faults() if not fault.endswith("has no reservation")]
        faults += [] if state.adopted else ["the spool is not adopted"]
        remembered = frozenset(n for n in names if (_will_be if n in entries else _is_remembered)(store, n))
        faults += _use(store, path, state, [name for name in names if name not in entries.keys() | remembered])
    except SpoolError as error:
        return Outcome(spool, {}, {}, frozenset(), (f"the spool cannot be recovered: {error!r}",))
    finally:
        if store is not None:
            store.close()
    return Outcome(spool, entries, state.notes, remembered, tuple(dict.fromkeys(faults)))


def loads(path: Path, queues: tuple[str, ...]) -> bool:
    """Tell whether the spool can be loaded, and is adopted; writes nothing. Raises a `SpoolError` but `NotASpool`."""
    try:
        store = DirectoryStorage.look(path)
    except NotASpool:
        return False
    try:
        return store.adopted and set(queues) <= set(store.queues())
    finally:
        store.close()


def _entries(state: SpoolState) -> dict[str, list[Found]]:
    places = {
        **state.available,
        **{f"{queue}/.waiting": held for queue, held in state.waiting.items()},
        **{f"{queue}/.checkout": held for queue, held in state.checked_out.items()},
        **{f".quarantine/{queue}": held for queue, held in state.quarantined.items()},
    }
    entries: dict[str, list[Found]] = {}
    for place, held in places.items():
        for name, metadata in held.items():
            entries.setdefault(name, []).append((place, metadata, state.data.get(name)))
    return entries


def _use(store: DirectoryStorage, path: Path, state: SpoolState, gone: Iterable[str]) -> Iterator[str]:
    """Check out, return and remove every entry, and reserve the names of those that are gone; yield what is wrong."""
    held_in = [
        (queue, name) for places in (state.available, state.waiting) for queue in places for name in places[queue]
    ]
    for queue, name in held_in:
        yield from _failure(f"{name} is stuck in {queue}", lambda q=queue, n=name: release(store, _claim(store, q, n)))
    for name in sorted(state.entries()):
        if not any(_failure(name, lambda n=name: store.reserve(n))):
            yield f"{name} can be reserved, and is in {state.places(name)}"
    yield from state_of(path).faults()
    for queue, name in held_in:
        yield from _failure(f"{name} cannot be removed from {queue}", lambda q=queue, n=name: _remove(store, q, n))
    for name in gone:
        yield from _failure(f"{name} cannot be reserved", lambda n=name: store.give_up(store.reserve(n)))
    after = state_of(path)
    aside = {name for held in after.quarantined.values() for name in held}
    if after.entries() != aside or set(after.data) - aside or after.registry - aside or after.temporary:
        yield f"when all had been removed, there were left {after}"


def _will_be(store: DirectoryStorage, name: str) -> bool:
    """Tell whether an entry is to be remembered, by what lies there, and not by who looks."""
    try:
        return b"remember" in (Path(store.location) / KEYS / name).read_bytes()
    except FileNotFoundError:
        return False


def _is_remembered(store: DirectoryStorage, name: str) -> bool:
    try:
        store.give_up(store.reserve(name))
    except NameTaken as error:
        return error.finished
    return False


def _failure(words: str, act: Callable[[], object]) -> Iterator[str]:
    try:
        _ = act()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told
        yield f"{words}: {error!r}"


def _claim(store: DirectoryStorage, queue: str, name: str) -> DirectoryClaim:
    claim = store.claim(available(queue), name, before_commit=nothing)
    if claim is Unavailable.GONE:
        claim = store.claim(waiting(queue), name, due_by=math.inf, before_commit=nothing)
    assert isinstance(claim, DirectoryClaim), claim
    return claim


def _remove(store: DirectoryStorage, queue: str, name: str) -> None:
    remove(store, _claim(store, queue, name), durability=None, before_commit=nothing)


def _beside(outcome: Outcome, wanted: str, legal: frozenset[object]) -> Iterator[str]:
    """Yield what is wrong with what is kept beside an entry."""
    if wanted.startswith(NOTES_OF):
        found = outcome.notes.get(wanted.removeprefix(NOTES_OF))
        if found not in legal:
            yield f"{wanted}: {found!r}, and not one of {sorted(map(repr, legal))}"
    else:
        name = wanted.removeprefix(KEY_OF)
        if name not in outcome.remembered:
            yield f"{name} is not remembered, or will not be"


def judge(outcome: Outcome, expected: Expected) -> str | None:
    """Return what is wrong with an outcome, or `None`."""
    faults = list(outcome.faults)
    wanted = {each.name: each.outcomes for each in expected}
    for name, legal in wanted.items():
        if name == SPOOL:
            if outcome.spool not in legal:
                return "the spool does not load"
        elif name.startswith((NOTES_OF, KEY_OF)):
            faults += _beside(outcome, name, legal)
        elif ANY in legal:
            faults = [fault for fault in faults if not fault.startswith((f"{name} has no data", f"{name} is in "))]
        else:
            places = outcome.entries.get(name, [None])
            if len(places) > 1:
                return f"{name} is doubled: {places}"
            if places[0] not in legal:
                return f"{name} is {places[0]}, and not one of {sorted(map(repr, legal))}"
    unknown = set(outcome.entries) - set(wanted)
    if unknown:
        return f"nobody made {sorted(unknown)}"
    return "; ".join(faults) or None
