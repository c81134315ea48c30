"""From suspects to problems: each is looked at again, under its lock where it has one, before anything is said of it.

Blocking; runs in a worker thread. What is remembered is the problems and nothing else: suspects come one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

from trio_multispool.monitor.check import may_be_newborn, problems_of
from trio_multispool.monitor.problems import ForeignFile, TooOld, Undecodable
from trio_multispool.storage.findings import Findings, Foreign, Holder, Kind, Temporary, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trio_multispool.monitor.limits import Ages
    from trio_multispool.monitor.problems import Problem
    from trio_multispool.storage.findings import Finding, Judge
    from trio_multispool.storage.protocol import Storage

    AnyStorage: TypeAlias = Storage[Any, Any]

_FRESH: Final = 2.0
"""How much older than the last examination a file may say it is and still be new: clocks of file systems are coarse."""


class Past(NamedTuple):
    """What an earlier examination of the same spool found, so that this one need not judge all metadata again."""

    began_at: float
    problems: tuple[Problem, ...]


class Found(NamedTuple):
    """What an examination has found."""

    problems: list[Problem]
    perhaps_newborn: list[str]
    """Names that are either orphans, or being reserved right now: to be looked at again after `check.RESERVING`."""


@final
class Examiner:
    """Looks at a store by certain rules."""

    def __init__(
        self, storage: AnyStorage, ages: Ages, judged: frozenset[str], judge: Judge, clock: Callable[[], float]
    ) -> None:
        """Say by which; `judge` knows how to decode the metadata of the queues `judged`."""
        self.storage: AnyStorage = storage
        self.ages: Ages = ages
        self.judge: Judge = judge
        self._judged = judged
        self._clock = clock

    def examine(self, keep_on: Callable[[], None], past: Past | None = None) -> Found:
        """Return what is wrong. `keep_on` is called again and again, and may raise to end it."""
        now = self._clock()
        found = Found([], [])
        for finding in self.storage.examine(self._wanted(now, past), self.judge):
            keep_on()
            if finding is None:
                continue
            if problems_of(finding, self.ages, now):
                closely = self._look_closely(finding)
                if isinstance(closely, Findings) and may_be_newborn(closely, self._clock()):
                    if self._problems(closely):
                        found.perhaps_newborn.append(closely.name)
                else:
                    found.problems.extend(self._problems(closely))
        return found

    def confirm(self, names: Iterable[str]) -> list[Problem]:
        """Return what is wrong with these names, however young they are."""
        return [problem for name in names for problem in self._problems(self.storage.look_closely(name, self.judge))]

    def still(self, problem: Problem) -> bool:
        """Tell whether there is still that problem."""
        if isinstance(problem, ForeignFile):
            finding: Finding = Foreign(problem.dir, problem.name, 0.0, problem.what)
        elif isinstance(problem, TooOld) and problem.dir.kind is Kind.TEMPORARY:
            finding = Temporary(problem.name, 0.0)
        else:
            return problem in self.confirm([problem.name])
        return problem in self._problems(self._look_closely(finding))

    def is_at_rest(self, name: str) -> bool:
        """Tell whether nobody has the name."""
        return self.storage.look_closely(name, self.judge).holder is not Holder.SOMEBODY

    def _look_closely(self, finding: Finding) -> Finding | None:
        if isinstance(finding, Findings):
            return self.storage.look_closely(finding.name, self.judge)
        return self.storage.look_again(finding)

    def _problems(self, finding: Finding | None) -> list[Problem]:
        return [] if finding is None else problems_of(finding, self.ages, self._clock())

    def _wanted(self, now: float, past: Past | None) -> Wanted:
        before = {queue: now - age for queue, age in self.ages.queues.items()}
        if past is None or now < past.began_at:  # or the clock was set back, and tells nothing
            return Wanted(before, judged=self._judged)
        undecodable = frozenset(problem.name for problem in past.problems if isinstance(problem, Undecodable))
        return Wanted(before, undecodable, self._judged, past.began_at - _FRESH)
