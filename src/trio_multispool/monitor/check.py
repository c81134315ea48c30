"""What is wrong, as a pure function of a snapshot, the limits and the time: no file, no clock, no lock.

The same function is used twice. Given a snapshot of a spool in use, it returns what is *suspected*: each trace was
seen at some moment, but not all at the same one. Given the traces of one name, read under its lock, it returns what is
certain (see `examiner`). What can be concluded depends on who holds the lock:

- *somebody*: the holder may be in the middle of a change. Only the age can be judged, because it holds at any moment;
- *nobody*: the files do not move, and every rule of a spool at rest must hold;
- *no reservation*, where there should be one: by the rules, nobody can be working on that name;
- *untold*: users of this spool need not take locks, and nobody is known to be dead. A name counts as at rest when it
  has not been touched for longer than the limit for temporary files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trio_multispool.monitor import problems
from trio_multispool.storage.findings import (
    DATA,
    NOTES,
    REGISTRY,
    TEMPORARY,
    Foreign,
    Holder,
    Kind,
    Shut,
    Spoilt,
    Temporary,
    why_no_due_time,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trio_multispool.monitor.limits import Ages
    from trio_multispool.monitor.problems import Problem
    from trio_multispool.storage.findings import Finding, Findings, Trace

RESERVING: Final = 0.5
"""How long a process may take between making a reservation and locking it, in seconds.

These are two system calls, and the process may have to wait for a processor between them.
"""


_WHAT: Final = {REGISTRY: "the reservation of", DATA: "the data of", NOTES: "the notes of"}
"""What the files of a name are, where they are not its metadata."""


def check(snapshot: Iterable[Finding], limits: Ages, now: float) -> Iterator[Problem]:
    """Yield what would be wrong if nothing was moving; each problem once."""
    for finding in snapshot:
        yield from problems_of(finding, limits, now)


def problems_of(finding: Finding, limits: Ages, now: float) -> list[Problem]:
    """Return what is wrong with one part of a snapshot."""
    match finding:
        case Foreign(directory, name, changed_at, what):
            return [problems.ForeignFile(name, directory, what, age=now - changed_at)]
        case Shut(directory, name, changed_at, owner):
            return [problems.Unreadable(name, directory, "the directory", owner, age=now - changed_at)]
        case Temporary(name, modified_at):
            age = now - modified_at
            return [problems.TooOld(name, TEMPORARY, age=age)] if _exceeds(age, limits.tmp_file) else []
        case Spoilt(directory, name, changed_at, fault):
            return [problems.UnreadableNotes(name, directory, fault, age=now - changed_at)]
        case _:
            return [*_problems_of_a_name(finding, limits, now), *_unreadable(finding, now)]


def may_be_newborn(findings: Findings, now: float) -> bool:
    """Tell whether somebody may be reserving this name just now, and has not locked it yet."""
    return [file.dir for file in findings.files] == [REGISTRY] and now - findings.files[0].changed_at < RESERVING


def _problems_of_a_name(findings: Findings, limits: Ages, now: float) -> list[Problem]:
    places = [file for file in findings.files if file.dir.place is not None]
    too_old = list(_too_old(findings.name, places, limits, now))
    at_rest = all(_exceeds(now - file.changed_at, limits.tmp_file) for file in findings.files)
    if findings.holder is Holder.SOMEBODY or (findings.holder is Holder.UNTOLD and not at_rest):
        return [*too_old]
    if places:
        others = [*_irregular(findings, places, now), *_faulty(findings.name, places, now)]
        abandoned = {problem.dir for problem in others if isinstance(problem, problems.Abandoned)}
        return [*(problem for problem in too_old if problem.dir not in abandoned), *others]
    if findings.holder is Holder.NO_RESERVATION and findings.at(REGISTRY) is not None:
        return []  # somebody has reserved the name meanwhile
    return [problems.Orphaned(findings.name, file.dir, age=now - file.changed_at) for file in findings.files]


def _exceeds(age: float, limit: float | None) -> bool:
    return limit is not None and age > limit


def _too_old(name: str, places: list[Trace], limits: Ages, now: float) -> Iterator[problems.TooOld]:
    for file in places:
        if file.dir.kind is Kind.CHECKOUT:
            age, limit = now - file.changed_at, limits.checked_out
        else:
            age, limit = now - file.modified_at, limits.queues.get(file.dir.queue)
        if file.dir.kind is not Kind.QUARANTINE and _exceeds(age, limit):
            yield problems.TooOld(name, file.dir, age=age)


def _irregular(findings: Findings, places: list[Trace], now: float) -> Iterator[Problem]:
    """Yield what breaks a rule: one place, data, a reservation, and a living owner if checked out."""
    name, first = findings.name, places[0]
    age = now - first.changed_at
    reserved = findings.at(REGISTRY) is not None
    if len(places) > 1:
        yield problems.Duplicated(name, first.dir, tuple(file.dir for file in places), age=age)
    if not reserved and findings.holder is not Holder.NOBODY:  # a holder's lock would be on a file that has gone
        yield problems.MissingReservation(name, first.dir, age=age)
    attached = [file for file in places if file.dir.kind is not Kind.QUARANTINE]
    if attached and findings.at(DATA) is None:
        yield problems.MissingData(name, attached[0].dir, age=age)
    alone = len(places) == 1 and first.dir.kind is Kind.CHECKOUT
    if alone and reserved and findings.holder in (Holder.NOT_ASKED, Holder.NOBODY):
        yield problems.Abandoned(name, first.dir, age=age)


def _faulty(name: str, places: list[Trace], now: float) -> Iterator[Problem]:
    """Yield whose metadata cannot be decoded, and what waits until nobody knows when."""
    for file in places:
        age = now - file.changed_at
        if file.fault is not None:
            yield problems.Undecodable(name, file.dir, file.fault, age=age)
        if file.dir.kind is Kind.WAITING and (reason := why_no_due_time(file.modified_at, file.changed_at)):
            yield problems.Misdated(name, file.dir, reason, age=age)


def _unreadable(findings: Findings, now: float) -> Iterator[Problem]:
    """Yield the first file of a name that cannot be read: mostly, all of them are of one owner."""
    for file in findings.files:
        if file.shut_by is not None:
            what = _WHAT.get(file.dir, "the metadata of entry")
            yield problems.Unreadable(findings.name, file.dir, what, file.shut_by, age=now - file.changed_at)
            return
