"""Operations in trouble: each is tried on a spool whose disk is full or fails, with a little more room every time.

The answer must be an `Err`, of those errors that a caller is told to expect of a disk; nothing may be raised, and what
is found afterwards must agree with the answer: an `Ok` has its effect, an error has none, and `DurabilityUnknown` may
have either.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from filesystems.ledger import Entry
from filesystems.workload import LARGE, OTHER, encoded
from helpers.spools import ANNE, BERT, Mail
from trio_multispool import (
    DurabilityUnknown,
    Err,
    Ok,
    OutOfSpace,
    ReadOnlySpool,
    SpoolError,
    StorageFailure,
    SyncsRefused,
    Use,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_multispool import CheckedOutEntry, Result, Spool

    Perform = Callable[[Spool[Any, Any, Any, Any], CheckedOutEntry[Any, Any, Any]], Awaitable[Result[Any, Any]]]

EXPECTED = (OutOfSpace, StorageFailure, ReadOnlySpool, SyncsRefused, DurabilityUnknown)

BEFORE = {"held": Entry("send", encoded(ANNE), LARGE)}
"""What is there before each trial: one entry, which is checked out."""

ROOMS = (0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
"""How many blocks are left free, one trial each, until the operation has succeeded a few times."""

ENOUGH = 3


@dataclasses.dataclass(frozen=True)
class Operation:
    """Something that is tried."""

    name: str
    perform: Perform
    after: dict[str, Entry]
    """What is there once it has succeeded."""
    between: dict[str, Entry] = dataclasses.field(default_factory=dict)
    """What else may be there if nothing certain was answered."""


OPERATIONS = (
    Operation(
        "enqueue",
        lambda spool, _: spool.enqueue(Mail.RETRY, BERT, LARGE, name=Use("new")),
        {**BEFORE, "new": Entry("retry", encoded(BERT), LARGE)},
    ),
    Operation(
        "save",
        lambda _, job: job.save(Mail.RETRY, BERT),
        {"held": Entry("retry", encoded(BERT), LARGE)},
        {"held": Entry("send", encoded(BERT), LARGE)},
    ),
    Operation("remove", lambda _, job: job.remove(), {}),
    Operation("data save", lambda _, job: job.data.save(OTHER), {"held": BEFORE["held"]._replace(data=OTHER)}),
)


@dataclasses.dataclass
class Answers:
    """How often each answer was given."""

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def __str__(self) -> str:
        """Say it, the most frequent first."""
        return ", ".join(f"{count} {name}" for name, count in self.counts.most_common())

    def add(self, answer: Result[Any, Any]) -> list[str]:
        """Count an answer, and return what is wrong with it."""
        what = "Ok" if isinstance(answer, Ok) else type(answer.error).__name__
        self.counts[what] += 1
        return [] if isinstance(answer, Ok) or isinstance(answer.error, EXPECTED) else [f"answered {answer!r}"]


def disagreement(operation: Operation, answer: Result[Any, Any], found: dict[str, Entry]) -> list[str]:
    """Say so if what is found does not agree with the answer."""
    match answer:
        case Ok():
            allowed = [operation.after]
        case Err(DurabilityUnknown()):
            allowed = [operation.after, BEFORE, operation.between]
        case _:
            allowed = [BEFORE]
    if found in allowed:
        return []
    seen = ", ".join(f"{name}: {entry}" for name, entry in found.items()) or "nothing"
    return [f"the answer was {answer}, and there is {seen}"]


async def held(spool: Spool[Any, Any, Any, Any]) -> CheckedOutEntry[Any, Any, Any]:
    """Enqueue the entry if it is not there, and check it out."""
    if not (await spool.entries(Mail.SEND)).unwrap():
        (await spool.enqueue(Mail.SEND, ANNE, LARGE, name=Use("held"))).unwrap()
    return (await spool.entry(Mail.SEND, "held").unwrap().checkout()).unwrap()


async def tried(
    operation: Operation, spool: Spool[Any, Any, Any, Any], job: CheckedOutEntry[Any, Any, Any]
) -> Result[Any, Any]:
    """Perform an operation, and look at the spool while the trouble lasts. Raises nothing, or the library is wrong."""
    answer: Result[Any, Any] | None = None
    with contextlib.suppress(SpoolError):  # leaving the block tells again that settling failed
        async with job:
            answer = await operation.perform(spool, job)
    for queue in Mail:
        _ = await spool.entries(queue)
    assert answer is not None
    return answer
