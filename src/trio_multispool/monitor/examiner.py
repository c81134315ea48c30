"""From suspects to problems: look at each suspect again, under its lock if it has one, before reporting it.

Blocking; runs in a worker thread. Only problems are kept in memory: suspects come one at a time.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from trio_multispool.monitor.check import may_be_newborn, problems_of
from trio_multispool.monitor.problems import Problem, TooOld, Undecodable, Unreadable, UnreadableNotes
from trio_multispool.storage.findings import Findings, Holder, Kind, Temporary, Wanted
from trio_multispool.storage.upkeep import upkeep_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trio_multispool.monitor.limits import Ages
    from trio_multispool.storage.findings import Finding, Judge, Loose
    from trio_multispool.storage.protocol import Storage

_FRESH: Final = 2.0
"""A file dated up to this many seconds before the last examination may still be new: file system clocks are coarse."""


class Past(NamedTuple):
    """What an earlier examination of the same spool found, so that this one need not judge all metadata again."""

    began_at: float
    problems: tuple[Problem, ...]


class Found(NamedTuple):
    """What an examination has found."""

    problems: list[Problem]
    perhaps_newborn: list[str]
    """Names that are orphans or just being reserved. Look at them again after `check.RESERVING`."""


@final
@dataclasses.dataclass(eq=False, repr=False)
class Examiner:
    """Examines a store by given limits."""

    storage: Storage[Any, Any]
    ages: Ages
    judged: frozenset[str]
    """The queues whose metadata `judge` can decode."""
    judge: Judge
    clock: Callable[[], float]

    def examine(self, keep_on: Callable[[], None], past: Past | None = None) -> Found:
        """Return what is wrong. Calls `keep_on` once per finding; it may raise to end the examination."""
        now = self.clock()
        found = Found([], [])
        for finding in self.storage.examine(self._wanted(now, past), self.judge):
            keep_on()
            if finding is None or not problems_of(finding, self.ages, now):
                continue
            if isinstance(finding, Findings):
                closely: Finding | None = self.storage.look_closely(finding.name, self.judge)
            else:
                closely = self._again(finding)
            problems = self._problems(closely)
            if isinstance(closely, Findings) and may_be_newborn(closely, self.clock()):
                found.perhaps_newborn.extend([closely.name] * bool(problems))
            else:
                found.problems.extend(problems)
        return found

    def confirm(self, names: Iterable[str]) -> list[Problem]:
        """Return what is wrong with these names, however young they are."""
        return [problem for name in names for problem in self._problems(self.storage.look_closely(name, self.judge))]

    def still(self, problem: Problem) -> bool:
        """Tell whether a problem that can be repaired is still there."""
        if isinstance(problem, TooOld) and problem.dir.kind is Kind.TEMPORARY:
            return problem in self._problems(self._again(Temporary(problem.name, 0.0)))
        return problem in self.confirm([problem.name])

    def is_at_rest(self, name: str) -> bool:
        """Tell whether nobody has the name."""
        return self.storage.look_closely(name, self.judge).holder is not Holder.SOMEBODY

    def _again(self, finding: Loose) -> Loose | None:
        return upkeep_of(self.storage, "what is judged by itself").look_again(finding)

    def _problems(self, finding: Finding | None) -> list[Problem]:
        return [] if finding is None else problems_of(finding, self.ages, self.clock())

    def _wanted(self, now: float, past: Past | None) -> Wanted:
        before = {queue: now - age for queue, age in self.ages.queues.items()}
        if past is None or now < past.began_at:  # or the clock was set back, and tells nothing
            return Wanted(before, judged=self.judged)
        kinds = (Undecodable, Unreadable, UnreadableNotes)
        again = frozenset(each.name for each in past.problems if isinstance(each, kinds))
        return Wanted(before, again, self.judged, past.began_at - _FRESH)
