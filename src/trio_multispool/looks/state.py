"""What is known after some looks at a spool, and what follows from them. No clock, no files, no terminal.

Theory. A look is a list of names. Names that appear between two looks came in; names that vanish went out. An entry
that did both in between is not seen, so a rate is a lower bound. An entry belongs to its queue while it is checked out
of it, or waits in it: it goes *out* when it is settled, not when a worker takes it. A worker that gives it back, or has
it wait for another attempt, brings nothing in.

Keeping a million names from one look to the next would take a hundred megabytes. So only a *sample* of a long queue is
kept: the names whose checksum ends in a given number of zero bits. Each look makes the same choice, so two samples can
be compared, and one can be made coarser later. The growth of a queue is known exactly, from its length; only what went
in and out again is estimated.
"""

import zlib
from typing import Final, final

import msgspec
from msgspec.structs import replace

from trio_multispool.looks.problems import OWNERLESS, Problem, problems_of
from trio_multispool.looks.seen import Look, QueueLook, Sample

MOST_NAMES: Final = 1 << 15
"""How many names of a queue are kept from one look to the next."""

WINDOW: Final = 10.0
"""Over how many seconds a rate is taken, at least one step between looks."""

MOST_DEPTHS: Final = 240
"""How many looks the longest sparkline shows."""

MOST_EVENTS: Final = 100
"""How many problems that started or ended are remembered."""


@final
class Sampling:
    """Takes in the names of a queue one by one, and keeps a sample of them that is never larger than `most`."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._bits = 0
        self._names: set[str] = set()

    def add(self, name: str) -> None:
        """Take in a name."""
        if not _chosen(name, self._bits):
            return
        self._names.add(name)
        while len(self._names) > self._most:
            self._bits += 1
            self._names = {kept for kept in self._names if _chosen(kept, self._bits)}

    def sample(self) -> Sample:
        """Return the sample."""
        return Sample(self._bits, frozenset(self._names))


def _chosen(name: str, bits: int) -> bool:
    return not bits or zlib.crc32(name.encode(errors="surrogateescape")) & ((1 << bits) - 1) == 0


def changes(before: QueueLook, after: QueueLook) -> tuple[int, int]:
    """Return how many names appeared in a queue and how many went, estimated if only samples are known."""
    bits = max(before.sample.bits, after.sample.bits)
    old = {name for name in before.sample.names if _chosen(name, bits)}
    new = {name for name in after.sample.names if _chosen(name, bits)}
    appeared, gone = len(new - old), len(old - new)
    if not bits:
        return appeared, gone
    both, grown = min(appeared, gone) << bits, after.total - before.total
    return both + max(grown, 0), both + max(-grown, 0)


@final
class Change(msgspec.Struct, frozen=True):
    """What happened to a queue between two looks."""

    seconds: float
    appeared: int
    gone: int


@final
class Line(msgspec.Struct, frozen=True):
    """What is known about one queue: how it was seen last, and what became of it before."""

    seen: QueueLook
    changes: tuple[Change, ...] = ()
    """The latest last, `WINDOW` seconds of them."""
    depths: tuple[int, ...] = ()
    """The latest last."""

    @property
    def rates(self) -> tuple[float, float] | None:
        """How many entries came in and went out in a second, or `None` before the second look."""
        seconds = sum(change.seconds for change in self.changes)
        if not seconds:
            return None
        appeared, gone = sum(it.appeared for it in self.changes), sum(it.gone for it in self.changes)
        return appeared / seconds, gone / seconds

    @property
    def estimated(self) -> bool:
        """Whether the rates are taken from a sample."""
        return self.seen.sample.bits > 0


@final
class Event(msgspec.Struct, frozen=True):
    """A problem that started or ended."""

    at: float
    started: bool
    problem: Problem


@final
class Model(msgspec.Struct, frozen=True):
    """All that is known after some looks."""

    look: Look | None = None
    lines: dict[str, Line] = msgspec.field(default_factory=dict)
    suspects: dict[str, Problem] = msgspec.field(default_factory=dict)
    """What the last look found and the one before did not: entries in motion are no problem."""
    lasting: dict[str, Problem] = msgspec.field(default_factory=dict)
    """What the last two looks found."""
    monitored: dict[str, Problem] = msgspec.field(default_factory=dict)
    """What the monitor found last, which it has confirmed."""
    problems: dict[str, Problem] = msgspec.field(default_factory=dict)
    """What is wrong, by the problems' identity; the one that started first comes first."""
    since: dict[str, float] = msgspec.field(default_factory=dict)
    events: tuple[Event, ...] = ()
    """The latest last."""


def advance(model: Model, look: Look) -> Model:
    """Return what is known after one more look."""
    seconds = 0.0 if model.look is None else look.instant - model.look.instant
    lines = {seen.queue: _advance_line(model.lines.get(seen.queue), seen, seconds) for seen in look.queues}
    found = problems_of(look)
    lasting = {key: problem for key, problem in found.items() if key in model.suspects or key in model.lasting}
    advanced = replace(
        model,
        look=look,
        lines=lines,
        suspects={key: problem for key, problem in found.items() if key not in lasting},
        lasting=lasting,
        monitored={key: problem for key, problem in model.monitored.items() if not _is_over(problem, look)},
    )
    return _told(advanced, look.at)


def checked(model: Model, found: dict[str, Problem], at: float) -> Model:
    """Return what is known after the monitor has looked the spool over."""
    return _told(replace(model, monitored=found), at)


def _is_over(problem: Problem, look: Look) -> bool:
    """Tell whether a look shows that a problem has ended, before the monitor looks again."""
    if not problem.key.startswith(OWNERLESS):
        return False
    all_seen = sum(seen.held for seen in look.queues) <= len(look.held)
    return all_seen and not any((held.queue, held.name) == (problem.queue, problem.name) for held in look.held)


def _told(model: Model, at: float) -> Model:
    """Return the model with what has started and what has ended since its problems were told last."""
    now = model.lasting | model.monitored
    ended = [Event(at, started=False, problem=it) for key, it in model.problems.items() if key not in now]
    started = [Event(at, started=True, problem=it) for key, it in now.items() if key not in model.problems]
    return replace(
        model,
        problems={key: now[key] for key in [*(key for key in model.problems if key in now), *now]},
        since={key: model.since.get(key, at) for key in now},
        events=(*model.events, *ended, *started)[-MOST_EVENTS:],
    )


def _advance_line(line: Line | None, seen: QueueLook, seconds: float) -> Line:
    if line is None:
        return Line(seen, depths=(seen.available,))
    kept = list(line.changes)
    if seconds > 0:
        kept.append(Change(seconds, *changes(line.seen, seen)))
    while len(kept) > 1 and sum(change.seconds for change in kept[1:]) >= WINDOW:
        _ = kept.pop(0)
    return Line(seen, tuple(kept), (*line.depths, seen.available)[-MOST_DEPTHS:])


def pause_after(took: float, every: float, share: float = 0.1) -> float:
    """Return how long to wait after a look that took this long: looks use at most one tenth of the time."""
    return max(every - took, took * (1 / share - 1), 0.0)
