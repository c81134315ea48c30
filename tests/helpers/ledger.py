"""What was asked of a spool and what it acknowledged, written down outside it; and a checker that compares the two.

Theory. Each enqueue begins a *life*, an identifier of its own that is part of the metadata and the data, so that an
entry found later is known whatever its name. Whoever has checked an entry out begins a *turn*, under a lock outside the
spool that counts the turns of the name: since owners exclude each other, turns are in order, whoever takes them. In a
turn, a line is written before each operation (`ATTEMPT`), and one after it has answered: `DONE`, or `REFUSED` where the
answer says that nothing has happened. An owner that is killed leaves an attempt without answer, which may have happened
or not.

So the checker keeps, for each life, the set of states that the entry may be in. An acknowledged operation leaves one;
one without answer adds those of a half-done and of a done one; what the next owner sees when it begins its turn
(`TAKEN`) must be one of them, and is from then on the only one. What is found at the end must be one of them too. That
finds what is lost, doubled, stale, torn or resurrected, and when. Nothing here reads a file or a clock.
"""

from __future__ import annotations

import collections
import enum
import hashlib
import itertools
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from helpers.spools import State

TORN = "torn"
"""The version of content that is not whole, or belongs to another life."""


class Stamp(msgspec.Struct, frozen=True):
    """The metadata: which life and version it is, and enough besides that a mixture of two would show."""

    life: str
    version: str
    filler: str


def _filler(life: str, version: str) -> str:
    digest = hashlib.sha256(f"{life} {version}".encode()).hexdigest()
    return digest * (1 + int(digest[0], 16))


def stamp(life: str, version: str) -> Stamp:
    """Return the metadata of one version."""
    return Stamp(life, version, _filler(life, version))


def stamped(life: str, version: str) -> bytes:
    """Return the data of one version, of a length of its own."""
    return msgspec.json.encode(stamp(life, version)) + b"\n" + _filler(version, life).encode()


def version_of(life: str, found: Stamp) -> str:
    """Return which version some metadata is."""
    return found.version if found == stamp(life, found.version) else TORN


def data_version_of(life: str, found: bytes) -> str:
    """Return which version some data is."""
    try:
        version = msgspec.json.decode(found.partition(b"\n")[0], type=Stamp).version
    except msgspec.DecodeError:
        return TORN
    return version if found == stamped(life, version) else TORN


class What(enum.StrEnum):
    """What a line tells."""

    ATTEMPT = "attempt"
    DONE = "done"
    REFUSED = "refused"
    """It was answered, rightly, that nothing has happened."""
    FAILED = "failed"
    """It was answered what may not be answered."""
    TAKEN = "taken"
    """An owner begins its turn, and this is what it sees."""
    TWICE = "twice"
    """An owner began its turn while another was at work."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a ledger."""

    what: What
    operation: str = ""
    life: str = ""
    turn: int = 0
    name: str = ""
    queue: str = ""
    """Where the entry was found, or is to go."""
    metadata: str = ""
    """The version that was found, or is to be stored; none: unchanged."""
    data: str = ""
    due: float = 0.0
    """Nobody may have the entry before this time of day."""
    at: float = 0.0
    """When it was found by somebody who may not have it early."""
    once: bool = False
    """Is its name never to be used again once it has been removed?"""
    why: str = ""


class Whole(NamedTuple):
    """An entry at rest: its queue, the versions of its metadata and its data, and when it is due, if it waits."""

    queue: str
    metadata: str
    data: str
    due: float = 0.0


class Fault(NamedTuple):
    """Something that must not be."""

    kind: str
    about: str
    why: str


class Found(NamedTuple):
    """An entry that is there at the end."""

    name: str
    entry: Whole


class Verdict(NamedTuple):
    """What the checker says."""

    faults: list[Fault]
    acknowledged: collections.Counter[str]
    """How many operations, by kind."""
    unanswered: collections.Counter[str]
    """Those whose process was killed before they answered."""
    brought_back: int
    """Turns that were cut short by the owner's death, of entries that were seen again."""


FIRST = "0"
"""The version of an entry's metadata and data when it is enqueued."""

_NOBODY: Mapping[str, str] = {}

SETTLING = ("save", "remove", "release", "fail")


class _Life:
    """One entry, from its enqueue on, as the ledgers tell it."""

    def __init__(self, life: str, given_up: Mapping[str, str]) -> None:
        self.life = life
        self._given_up = given_up
        self.name = ""
        self.faults: list[Fault] = []
        self.possible: set[Whole | None] = {None}
        """`None`: no such entry."""
        self.cut_short = 0
        self.brought_back = 0
        self._before = self.possible

    def fault(self, kind: str, why: str) -> None:
        self.faults.append(Fault(kind, f"{self.life} ({self.name or 'of a generated name'})", why))

    def read(self, line: Line) -> None:
        """Take one line into account."""
        if line.operation == "enqueue":
            self.name = line.name or self.name
        match line.what:
            case What.ATTEMPT:
                self._before = self.possible
                self.possible = self._before | self._steps(line)
            case What.DONE:
                self.possible = self._ends(line)
            case What.REFUSED | What.FAILED:
                self.possible = self._before
                if line.what is What.FAILED:
                    self.fault("failed", f"{line.operation} in turn {line.turn}: {line.why}")
            case What.TWICE:
                self.fault("two owners", line.why)
            case What.TAKEN:
                when = f"at the beginning of turn {line.turn}"
                self.see(Whole(line.queue, line.metadata, line.data), line.name, when, line.at)

    def _ends(self, line: Line) -> set[Whole | None]:
        """Return the states after an operation that was done."""
        if line.operation == "enqueue":
            return {Whole(line.queue, FIRST, FIRST, line.due)}
        if line.operation == "remove":
            return {None}
        after: set[Whole | None] = set()
        for old in self._before - {None}:
            assert old is not None
            if line.operation == "save":
                after.add(Whole(line.queue, line.metadata or old.metadata, old.data, line.due))
            elif line.operation == "fail":
                after |= {old._replace(due=line.due), old._replace(queue=line.queue)}
            elif line.operation == "data save":
                after.add(old._replace(data=line.data))
            else:
                after.add(old)
        return after

    def _steps(self, line: Line) -> set[Whole | None]:
        """Return the states that an operation goes through: a save has one between its two renames."""
        between: set[Whole | None] = set()
        if line.operation == "save" and line.metadata:
            between = {old._replace(metadata=line.metadata) for old in self._before if old is not None}
        return between | self._ends(line)

    def see(self, entry: Whole | None, name: str, when: str, at: float = 0.0) -> None:
        """Compare what is seen, by somebody who may not see it early if `at` tells the time, with what may be."""
        if entry is not None and self.cut_short:
            self.brought_back += 1
        self.cut_short = 0
        # Without a due time, for the one that is seen has none; where it may have several, the earliest counts.
        latest_first = sorted(self.possible, key=lambda each: each.due if each else 0.0, reverse=True)
        due = {None if each is None else each._replace(due=0.0): each.due if each else 0.0 for each in latest_first}
        given_up = self._given_up
        unseen = {each._replace(queue=given_up[each.queue]) for each in due if each and each.queue in given_up}
        if entry is not None and TORN in (entry.metadata, entry.data):
            self.fault("torn", f"{entry} {when}")
        elif at and due.get(entry, 0.0) > at:
            self.fault("early", f"{entry} {when}, {due[entry] - at} s before it was due")
        elif entry not in due.keys() | unseen:
            self.fault(self._kind(entry), f"{entry} {when}, instead of {_in_words(self.possible)}")
        elif entry is not None and self.name and name != self.name:
            self.fault("stale", f"it is called {name} {when}")
        self.possible = {entry}

    def _kind(self, entry: Whole | None) -> str:
        if entry is None:
            return "lost"
        return "resurrected" if self.possible == {None} else "stale"


def _in_words(states: Iterable[Whole | None]) -> str:
    return " or ".join(sorted(str(state) for state in states))


def _by_life(ledgers: Iterable[Sequence[Line]]) -> dict[str, dict[int, list[Line]]]:
    """Sort the lines by life and turn; those of a turn are of one task, in one ledger, and keep their order there."""
    lives: dict[str, dict[int, list[Line]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in itertools.chain.from_iterable(ledgers):
        lives[line.life][line.turn].append(line)
    return lives


def check(
    ledgers: Iterable[Sequence[Line]], found: Mapping[str, Sequence[Found]], given_up: Mapping[str, str] = _NOBODY
) -> Verdict:
    """Compare the ledgers with each other, and with the entries found at the end, by life; nobody may be at work.

    `given_up` tells to which queue an entry goes, by itself, if too many of those who tried it died.
    """
    lives, faults = _by_life(ledgers), []
    verdict = Verdict(faults, collections.Counter(), collections.Counter(), 0)
    brought_back = 0
    for name, turns in lives.items():
        life = _Life(name, given_up)
        for _, lines in sorted(turns.items()):
            for line in lines:
                life.read(line)
            life.cut_short += _is_cut_short(lines)
            _count(lines, verdict)
        entries = found.get(name, [])
        if len(entries) > 1:
            life.fault("doubled", f"it is there as {' and as '.join(entry.name for entry in entries)}")
        if entries:
            life.see(entries[0].entry, entries[0].name, "at the end")
        else:
            life.see(None, "", "at the end")
        faults += life.faults
        brought_back += life.brought_back
    faults += [
        Fault("unknown", f"{life} ({entry.name})", f"nobody enqueued {entry.entry}")
        for life, entries in found.items()
        if life not in lives
        for entry in entries
    ]
    faults += _done_again(lives, found)
    return verdict._replace(brought_back=brought_back)


def _done_again(
    lives: Mapping[str, Mapping[int, Sequence[Line]]], found: Mapping[str, Sequence[Found]]
) -> Iterator[Fault]:
    """Yield a fault for each name that was used again though it is remembered, or is remembered without a reason."""
    removed: dict[str, int] = {}
    tried: set[str] = set()
    of_a_name: dict[str, list[str]] = collections.defaultdict(list)
    for life, turns in lives.items():
        begun = next((line for line in turns.get(0, ()) if line.once), None)
        if begun is None:
            continue
        of_a_name[begun.name].append(life)
        for turn, lines in turns.items():
            removals = {line.what for line in lines if line.operation == "remove"}
            if What.DONE in removals:
                removed[begun.name] = min(turn, removed.get(begun.name, turn))
            if removals - {What.REFUSED}:
                tried.add(begun.name)
    for name, used in of_a_name.items():
        for life in used:
            after = found.get(life) or max(lives[life]) > removed.get(name, max(lives[life]))
            if name in removed and after:
                yield Fault("done again", f"{life} ({name})", f"it had been removed in turn {removed[name]}")
            if name not in tried and any(line.why == "remembered" for line in lives[life].get(0, ())):
                yield Fault("lost", f"{life} ({name})", "it was refused as done, and nobody had removed one")


def _is_cut_short(lines: Sequence[Line]) -> bool:
    """Tell whether an owner did not come to settle its entry, or not to the end."""
    if lines[0].what is not What.TAKEN:
        return False
    return lines[-1].what is not What.DONE or lines[-1].operation not in SETTLING


def _count(lines: Sequence[Line], verdict: Verdict) -> None:
    for line, following in itertools.zip_longest(lines, lines[1:]):
        if line.what is What.DONE:
            verdict.acknowledged[line.operation] += 1
        elif line.what is What.ATTEMPT and following is None:
            verdict.unanswered[line.operation] += 1


def found_in(state: State) -> tuple[dict[str, list[Found]], list[Fault]]:
    """Return the entries of a spool at rest by life, and what contradicts the promise of one."""
    faults = [Fault("left over", "the spool", fault) for fault in state.faults()]
    faults += [
        Fault("stuck", name, f"it is checked out of {queue}")
        for queue, names in state.checked_out.items()
        for name in names
    ]
    faults += [Fault("torn", name, f"in quarantine: {state.reasons.get(name)}") for name in state.reasons]
    found: dict[str, list[Found]] = collections.defaultdict(list)
    for queue, entries in itertools.chain(state.available.items(), state.waiting.items()):
        for name, raw in entries.items():
            try:
                metadata = msgspec.json.decode(raw, type=Stamp)
            except msgspec.DecodeError:
                faults.append(Fault("torn", name, f"its metadata is {raw!r}"))
                continue
            life = metadata.life
            data = data_version_of(life, state.data.get(name, b""))
            found[life].append(Found(name, Whole(queue, version_of(life, metadata), data)))
    return found, faults
