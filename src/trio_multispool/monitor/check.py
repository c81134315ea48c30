"""What is wrong, as a pure function of a snapshot, the limits and the time: no file, no clock, no lock.

The same function is used twice. Of a snapshot of a spool in use it says what is *suspected*: each of the traces is as
it was at some moment, but not all at the same. Of the traces of one name, looked up under its lock, it says what is so
(see `confirming`). Who has the lock decides what can be concluded:

- *somebody*: he may be in the middle of a change, so nothing is wrong but what is so at any single moment, its age;
- *nobody*: then the files do not move, and every rule of a spool at rest must hold;
- *no reservation*, where there should be one: nobody can be working on that name by the rules;
- *untold*: users of this spool need not take locks, and nobody is known to be dead. What has not been touched for as
  long as a temporary file may be old is taken for at rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trio_multispool.monitor.problems import (
    Abandoned,
    Duplicated,
    ForeignFile,
    MissingData,
    MissingReservation,
    Orphaned,
    TooOld,
    Undecodable,
)
from trio_multispool.storage.findings import DATA, REGISTRY, TEMPORARY, Findings, Foreign, Holder, Kind, Temporary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trio_multispool.monitor.limits import Ages
    from trio_multispool.monitor.problems import Problem
    from trio_multispool.storage.findings import Finding, Trace

RESERVING: Final = 0.5
"""How long a process may take between making a reservation and locking it, in seconds.

The two are two system calls, between which it can be kept waiting for a processor.
"""


def check(snapshot: Iterable[Finding], limits: Ages, now: float) -> Iterator[Problem]:
    """Yield what is wrong, if everything was at rest; each problem once."""
    for finding in snapshot:
        yield from problems_of(finding, limits, now)


def problems_of(finding: Finding, limits: Ages, now: float) -> list[Problem]:
    """Return what is wrong with one part of a snapshot."""
    match finding:
        case Foreign(directory, name, changed_at, what):
            return [ForeignFile(name, directory, what, age=now - changed_at)]
        case Temporary(name, modified_at):
            age = now - modified_at
            return [TooOld(name, TEMPORARY, age=age)] if _exceeds(age, limits.tmp_file) else []
        case _:
            return _problems_of_a_name(finding, limits, now)


def may_be_newborn(findings: Findings, now: float) -> bool:
    """Tell whether these may be those of a name that somebody is reserving, and has not come to lock."""
    return [file.dir for file in findings.files] == [REGISTRY] and now - findings.files[0].changed_at < RESERVING


def _problems_of_a_name(findings: Findings, limits: Ages, now: float) -> list[Problem]:
    places = [file for file in findings.files if file.dir.place is not None]
    too_old = [TooOld(findings.name, file.dir, age=age) for file, age in _too_old(places, limits, now)]
    if findings.holder is Holder.SOMEBODY or (findings.holder is Holder.UNTOLD and not _at_rest(findings, limits, now)):
        return [*too_old]
    if not places:
        return _orphans(findings, now)
    others = [*_irregular(findings, places, now), *_undecodable(findings, places, now)]
    abandoned = {problem.dir for problem in others if isinstance(problem, Abandoned)}
    return [*(problem for problem in too_old if problem.dir not in abandoned), *others]


def _exceeds(age: float, limit: float | None) -> bool:
    return limit is not None and age > limit


def _too_old(places: list[Trace], limits: Ages, now: float) -> Iterator[tuple[Trace, float]]:
    for file in places:
        if file.dir.kind is Kind.CHECKOUT:
            age, limit = now - file.changed_at, limits.checked_out
        else:
            age, limit = now - file.modified_at, limits.queues.get(file.dir.queue)
        if file.dir.kind is not Kind.QUARANTINE and _exceeds(age, limit):
            yield file, age


def _at_rest(findings: Findings, limits: Ages, now: float) -> bool:
    """Tell whether nobody has touched a name for long enough."""
    if not findings.files:
        return True
    return _exceeds(now - max(file.changed_at for file in findings.files), limits.tmp_file)


def _orphans(findings: Findings, now: float) -> list[Problem]:
    if findings.holder is Holder.NO_RESERVATION and findings.at(REGISTRY) is not None:
        return []  # it has come meanwhile, and somebody with it
    return [Orphaned(findings.name, file.dir, age=now - file.changed_at) for file in findings.files]


def _irregular(findings: Findings, places: list[Trace], now: float) -> Iterator[Problem]:
    """Yield what contradicts: each entry once, whole, reserved, and checked out only by the living."""
    name, first = findings.name, places[0]
    age = now - first.changed_at
    reserved = findings.at(REGISTRY) is not None
    if len(places) > 1:
        yield Duplicated(name, first.dir, tuple(file.dir for file in places), age=age)
    if not reserved and findings.holder is not Holder.NOBODY:  # his lock would be on a file that has gone
        yield MissingReservation(name, first.dir, age=age)
    attached = [file for file in places if file.dir.kind is not Kind.QUARANTINE]
    if attached and findings.at(DATA) is None:
        yield MissingData(name, attached[0].dir, age=age)
    alone = len(places) == 1 and first.dir.kind is Kind.CHECKOUT
    if alone and reserved and findings.holder in (Holder.NOT_ASKED, Holder.NOBODY):
        yield Abandoned(name, first.dir, age=age)


def _undecodable(findings: Findings, places: list[Trace], now: float) -> Iterator[Problem]:
    for file in places:
        if file.fault is not None:
            yield Undecodable(findings.name, file.dir, file.fault, age=now - file.changed_at)
