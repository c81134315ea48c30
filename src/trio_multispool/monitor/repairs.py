"""What to do about each problem: plan it, as values, and then do it if asked to.

A problem is repaired only if it is still there when looked at under its lock. The repairing operation takes that lock
itself, gives way if another process holds it, and can be killed and repeated. What needs a guess is left to a person,
and the answer says so.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, final

import msgspec

from trio_multispool.errors import DataNotFound, SpoolError
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.monitor import problems
from trio_multispool.monitor.problems import Problem
from trio_multispool.storage.findings import Kind
from trio_multispool.storage.requests import NotDue, Releasing
from trio_multispool.storage.singly import settle_one
from trio_multispool.storage.upkeep import is_adopted, upkeep_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from trio_multispool.monitor.examiner import Examiner


class Action(enum.Enum):
    """What can be done."""

    RETURN = "put back"
    COLLECT = "deleted"
    RESERVE = "reserved again"
    QUARANTINE = "set aside in quarantine"
    LEAVE = "left"


@final
class Repair(msgspec.Struct, frozen=True):
    """What is to be done about a problem, and whether it was."""

    problem: Problem
    action: Action
    done: bool
    why: str
    """A sentence: what the action is or was, or why nothing was done."""


def plan(problem: Problem) -> Repair:
    """Say what would be done about a problem."""
    return Repair(problem, _action(problem), done=False, why=problem.remedy)


def _action(problem: Problem) -> Action:
    match problem:
        case problems.Abandoned():
            return Action.RETURN
        case problems.MissingReservation():
            return Action.RESERVE
        case problems.Undecodable() | problems.MissingData():
            return Action.QUARANTINE
        case problems.Orphaned():
            return Action.COLLECT
        case problems.Duplicated() if problem.is_provable:
            return Action.COLLECT
        case problems.TooOld() if problem.dir.kind is Kind.TEMPORARY:
            return Action.COLLECT
        case _:
            return Action.LEAVE


def repair(
    examiner: Examiner, problem: Problem, collected: Container[str], before_commit: Callable[[], None]
) -> Repair:
    """Do what can be done about a problem, and say what came of it.

    `collected` are names of which an earlier repair has just deleted everything that belonged to no entry.
    """
    planned = plan(problem)
    if planned.action is Action.LEAVE:
        return planned
    if isinstance(problem, problems.Orphaned) and problem.name in collected:
        return msgspec.structs.replace(planned, done=True)
    try:
        if not is_adopted(examiner.storage):
            return _left(problem, "the spool is not adopted: nobody in it is known to be dead")
        if not examiner.still(problem):
            return _left(problem, "it is no longer so, or somebody is at work on it")
        before_commit()
        if not _act(examiner, problem):
            return _left(problem, _why_not(examiner, problem))
    except SpoolError as error:
        return _left(problem, str(error))
    return msgspec.structs.replace(planned, done=True)


def _why_not(examiner: Examiner, problem: Problem) -> str:
    """Say why a repair did nothing about a problem that was there."""
    if isinstance(problem, problems.Orphaned) and examiner.is_at_rest(problem.name):
        return "something that is no file has its name in a queue; move that away by hand, and repair again"
    return "somebody is at work on it"


def _left(problem: Problem, why: str) -> Repair:
    return Repair(problem, Action.LEAVE, done=False, why=f"it is left: {why}")


def _act(examiner: Examiner, problem: Problem) -> bool:
    """Repair a problem. Return whether this call did it."""
    storage, name = examiner.storage, problem.name
    match problem:
        case problems.MissingReservation():
            return upkeep_of(storage, "a reservation").reserve_again(name)
        case problems.Undecodable():
            return _set_aside(examiner, problem, lambda raw: examiner.judge(problem.dir.queue, raw) is not None)
        case problems.MissingData():
            if problem.dir.kind is Kind.CHECKOUT:
                _ = storage.recover_name(name)
            return _set_aside(examiner, problem, lambda _raw: _is_lost(examiner, name))
        case problems.TooOld():
            return upkeep_of(storage, "a temporary file").clear_temporary(name)
        case problems.Duplicated():
            _ = storage.recover_name(name)
            return examiner.is_at_rest(name) and not examiner.still(problem)
        case _:
            return storage.recover_name(name) is not None


def _set_aside(examiner: Examiner, problem: Problem, is_faulty: Callable[[bytes], bool]) -> bool:
    """Check the entry out, and set it aside if it is faulty. If killed in between, recovery puts it back."""
    storage = examiner.storage
    place = Place(problem.dir.queue, State.WAITING if problem.dir.kind is Kind.WAITING else State.AVAILABLE)
    claim = storage.claim(place, problem.name, before_commit=lambda: None)
    if isinstance(claim, (Unavailable, NotDue)):
        return False
    try:
        if is_faulty(claim.metadata):
            storage.quarantine(claim, f"{problem.message}; found by the monitor")
            return True
        settle_one(storage, Releasing(claim))
        return False
    finally:
        claim.abandon()


def _is_lost(examiner: Examiner, name: str) -> bool:
    try:
        _ = examiner.storage.stat_data(name)
    except DataNotFound:
        return True
    return False
