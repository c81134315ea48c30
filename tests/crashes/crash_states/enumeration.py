"""What may lie on a disk when the power fails, under three models of what a file system does.

Common to all: after an fsync of a file has returned, its content is safe; until then, of each write since the last
one nothing, the first half, or all may have reached the disk, for each file independently. After a sync of the whole
file system, all that came before is safe.

*Ordered*: changes of directories reach the disk in the order in which they were made, as in a journal, so some first
part of them is there; an fsync of anything makes all changes before it safe. (ext4, XFS.)

*Weak*: any subset of the changes of directories may be there. A change is wholly there or not at all, and sets its
entries to what it set them to, whatever else is there; of changes to one entry, the last that is there decides. So of
two renames in a row, the second may be there and the first not, and then the file has two names. An fsync of a
directory makes safe every earlier change to an entry of it, whole, so with what a rename did in another directory. An
fsync of a file makes no entry safe. Nothing weaker than atomic renames is modelled: the design relies on them.

*Weaker*: the same, but an fsync of a directory makes its entries safe as they are: for each, only the change that was
the last to set it. Changes before that need not be there, nor what they did in another directory. btrfs, which logs
what a directory holds and not how it came to that, is like this: a file that was moved to a directory and unlinked
there comes back where it was moved from, unless that directory is synced too.

A crash may come between any two calls, or in a call. What may be there grows with every call that is no sync, so
it is enough to enumerate before each sync, before each change of what is expected, and at the end.

*Bound*: in the weak model all subsets are enumerated, by groups of changes that share entries, unless that is more
than `MOST` at one point. Then one entry of the spool (a name, with all its files) is in each of its states, while
every other is on the disk with all of its changes or with none of those that are not safe; each in turn.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeAlias

from crash_states.disk import Change, Expect, Sync, Tree, Write, tree_of
from trio_multispool.storage.directory.disk.layout import DATA_PREFIX, UNSAFE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crash_states.disk import Disk, Entry, Record

MOST = 4096
"""How many combinations are enumerated at one point at most, before the bound sets in."""

Expected: TypeAlias = frozenset[Expect]
"""What must be found, of each entry."""

States: TypeAlias = dict[Tree, set[Expected]]
"""Trees that may be on the disk, with what must be found after recovery at each point at which they may."""


class _Moment:
    """What was asked of the disk up to some point, and what of it is safe."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.changes: list[Change] = []
        self.safe: set[int] = set()
        """The changes that are safe in the weak model, by number."""
        self.last_safe: set[int] = set()
        """Likewise in the weaker one."""
        self.committed = 0
        """How many changes are safe in the ordered model."""
        self.contents: dict[int, list[bytes]] = {inode: [data] for inode, data in disk.contents.items()}
        """What may be in each file: what is safe, and then what each later write may have made of it."""
        self.names: dict[int, str] = {inode: _entry_name(entry) for entry, inode in disk.entries.items()}
        """Which entry of the spool each file belongs to."""
        self.directories = {inode for inode in disk.entries.values() if inode not in disk.contents}
        self.expected: dict[str, Expect] = {}

    def apply(self, record: Record) -> None:
        """Go on by one record."""
        match record:
            case Change():
                self._change(record)
            case Write(inode):
                last = self.contents[inode][-1]
                self.contents[inode] += [record.apply(last, half=True), record.apply(last)]
            case Sync(inode=None):
                self.safe.update(range(len(self.changes)))
                self.last_safe.update(self.safe)
                self.committed = len(self.changes)
                self.contents = {inode: versions[-1:] for inode, versions in self.contents.items()}
            case Sync(inode=inode):
                self.committed = len(self.changes)
                if inode in self.contents:
                    self.contents[inode] = self.contents[inode][-1:]
                else:
                    touching, last = self._changes_of(inode)
                    self.safe |= touching
                    self.last_safe |= last
            case Expect(name):
                self.expected[name] = record

    def _change(self, change: Change) -> None:
        self.changes.append(change)
        for entry, inode in change.sets:
            if inode is None or inode in self.contents or inode in self.directories:
                continue
            self.names[inode] = _entry_name(entry)
            if change.words.startswith("mkdir"):
                self.directories.add(inode)
            else:
                self.contents[inode] = [b""]

    def _changes_of(self, directory: int | None) -> tuple[set[int], set[int]]:
        """Return which changes touched a directory's entries, by number, and which made them what they are."""
        last: dict[Entry, int] = {}
        touching: set[int] = set()
        for number, change in enumerate(self.changes):
            mine = [entry for entry, _ in change.sets if entry[0] == directory]
            last.update(dict.fromkeys(mine, number))
            touching |= {number} if mine else set()
        return touching, set(last.values())

    def trees(self, entries: Mapping[Entry, int], versions: Callable[[int], Sequence[bytes]]) -> Iterator[Tree]:
        """Yield the trees with those directory entries, and each file that can be seen in each of its versions."""
        seen = {inode: versions(inode) for inode in set(entries.values()) if inode in self.contents}
        open_ = [inode for inode, contents in seen.items() if len(contents) > 1]
        fixed = {inode: contents[0] for inode, contents in seen.items()}
        for combination in itertools.product(*(seen[inode] for inode in open_)):
            yield tree_of(entries, {**fixed, **dict(zip(open_, combination, strict=True))}.get)

    def versions(self, inode: int) -> Sequence[bytes]:
        """Return all that a file may contain."""
        return list(dict.fromkeys(self.contents[inode]))

    def extremes(self, inode: int) -> Sequence[bytes]:
        """Return what a file contains if nothing has reached the disk, and if all has."""
        return list(dict.fromkeys((self.contents[inode][0], self.contents[inode][-1])))


def _entry_name(entry: Entry) -> str:
    """Return which entry of the spool a directory entry belongs to: the name, without what temporary files add."""
    name = entry[1]
    if name.startswith(UNSAFE_PREFIX):
        return name.removeprefix(UNSAFE_PREFIX).partition(".")[2]
    return name.removeprefix(DATA_PREFIX)


def ordered(moment: _Moment) -> Iterator[Tree]:
    """Yield what may be on the disk under the ordered model."""
    entries = dict(moment.disk.entries)
    for number, change in enumerate(moment.changes):
        if number >= moment.committed:
            yield from moment.trees(entries, moment.versions)
        _set(entries, change.sets)
    yield from moment.trees(entries, moment.versions)


def weak(moment: _Moment) -> Iterator[Tree]:
    """Yield what may be on the disk under the weak model."""
    return _subsets(moment, moment.safe)


def weaker(moment: _Moment) -> Iterator[Tree]:
    """Yield what may be on the disk under the weaker model."""
    return _subsets(moment, moment.last_safe)


def _subsets(moment: _Moment, safe: set[int]) -> Iterator[Tree]:
    """Yield the trees with all changes that are safe, and any of the others."""
    base = dict(moment.disk.entries)
    for number in sorted(safe):
        _set(base, moment.changes[number].sets)
    names = [_by_name(moment, group) for group in _groups(moment, safe)]
    by_name: dict[str, list[_Outcomes]] = {}
    for name, outcomes in names:
        by_name.setdefault(name, []).append(outcomes)
    total = 1
    for _, outcomes in names:
        total *= len(outcomes)
    if total <= MOST:
        for combination in itertools.product(*(outcomes for _, outcomes in names)):
            yield from moment.trees(_with(base, combination), moment.versions)
        return
    for name, groups in by_name.items():
        yield from _in_turn(moment, base, name, groups, [others for each, others in by_name.items() if each != name])


_Outcome: TypeAlias = tuple[tuple["Entry", int | None], ...]
_Outcomes: TypeAlias = list[_Outcome]
"""What a group of changes may have made of its entries: first if none of those is there, last if all are."""


def _in_turn(
    moment: _Moment,
    base: Mapping[Entry, int],
    name: str,
    mine: Sequence[_Outcomes],
    others: Sequence[Sequence[_Outcomes]],
) -> Iterator[Tree]:
    """Yield one name in each of its states, all others with all their changes or with none."""
    extremes = [([group[0] for group in groups], [group[-1] for group in groups]) for groups in others]

    def versions(inode: int) -> Sequence[bytes]:
        return moment.versions(inode) if moment.names.get(inode) == name else moment.extremes(inode)

    for combination in itertools.product(*mine):
        for rest in itertools.product(*extremes):
            yield from moment.trees(_with(base, [*combination, *itertools.chain(*rest)]), versions)


def _groups(moment: _Moment, safe: set[int]) -> list[list[int]]:
    """Return the changes that are not safe, by number, in groups that share no entry."""
    group_of: dict[Entry, list[int]] = {}
    for number, change in enumerate(moment.changes):
        if number in safe:
            continue
        group = [number]
        for entry, _ in change.sets:
            other = group_of.get(entry)
            if other is not None and other is not group:
                group[:0] = [each for each in other if each not in group]
        for each in group:
            for entry, _ in moment.changes[each].sets:
                group_of[entry] = group
    return list({id(group): sorted(group) for group in group_of.values()}.values())


def _by_name(moment: _Moment, group: Sequence[int]) -> tuple[str, _Outcomes]:
    """Return the name that a group of changes is about, and all that a subset of it may make of its entries."""
    mine = {entry for number in group for entry, _ in moment.changes[number].sets}
    chain = [
        (number, [(entry, inode) for entry, inode in change.sets if entry in mine])
        for number, change in enumerate(moment.changes)
        if any(entry in mine for entry, _ in change.sets)
    ]
    outcomes: dict[_Outcome, None] = {}
    for subset in itertools.product((False, True), repeat=len(group)):
        missing = {number for number, there in zip(group, subset, strict=True) if not there}
        entries: dict[Entry, int | None] = {entry: moment.disk.entries.get(entry) for entry in mine}
        for number, sets in chain:
            if number not in missing:
                entries.update(sets)
        outcome = tuple(sorted(entries.items()))
        _ = outcomes.pop(outcome, None) if all(subset) else None  # the last is the one with all of them
        outcomes[outcome] = None
    return _entry_name(min(mine)), list(outcomes)


def _with(base: Mapping[Entry, int], outcomes: Iterable[_Outcome]) -> dict[Entry, int]:
    entries = dict(base)
    for outcome in outcomes:
        _set(entries, outcome)
    return entries


def _set(entries: dict[Entry, int], sets: Iterable[tuple[Entry, int | None]]) -> None:
    for entry, inode in sets:
        if inode is None:
            _ = entries.pop(entry, None)
        else:
            entries[entry] = inode


MODELS: dict[str, Callable[[_Moment], Iterator[Tree]]] = {"ordered": ordered, "weak": weak, "weaker": weaker}


def crash_states(disk: Disk, records: Sequence[Record], model: str, *, start: int = 0) -> States:
    """Return every tree that may be on the disk if the power fails at any point from record number `start` on."""
    moment, found, told = _Moment(disk), States(), False
    for number, record in enumerate(records):
        if number >= start and isinstance(record, Sync | Expect) and not told:
            _tell(moment, model, found)
            told = True
        moment.apply(record)
        told = told and isinstance(record, Sync)  # a sync only takes away, and expects nothing new
    _tell(moment, model, found)
    return found


def _tell(moment: _Moment, model: str, found: States) -> None:
    expected = frozenset(moment.expected.values())
    for tree in MODELS[model](moment):
        found.setdefault(tree, set()).add(expected)
