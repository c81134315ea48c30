"""Operations that share their syncs: several are taken forward together, and what they wait for is synced once.

Theory. An operation on disk is a row of steps with syncs between them: what it wrote must be on disk before its
commit, and the commit before it is acknowledged. A sync of a directory covers every rename that returned before it
began, whoever made it. So an operation is written as a generator that yields the name of a directory where it needs
that directory synced before it goes on. Run alone, each yield is a sync. Run together, all operations go forward to
where they need one, each directory among those is synced once, and all go on. That keeps the order of every single
operation, and is all that its safety rests on.

An operation that fails, or whose sync fails, ends with its exception; the others go on.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

Steps: TypeAlias = "Generator[str, None, None]"
"""An operation, yielding each directory that must be synced before it goes on; a failed sync is raised there."""


def run_together(sync: Callable[[str], None], operations: Sequence[Steps]) -> list[BaseException | None]:
    """Take all operations to their ends; return for each, in order, what it raised, or `None`."""
    outcomes: list[BaseException | None] = [None] * len(operations)
    needs: dict[int, str] = {}

    def advance(number: int, failure: Exception | None) -> None:
        try:
            needs[number] = next(operations[number]) if failure is None else operations[number].throw(failure)
        except StopIteration:
            return
        except BaseException as error:  # noqa: BLE001  # handed to whoever asked for the operation
            outcomes[number] = error

    for number in range(len(operations)):
        advance(number, None)
    while needs:
        waiting, failures = dict(needs), dict[str, Exception]()
        needs.clear()
        for directory in dict.fromkeys(waiting.values()):
            try:
                sync(directory)
            except Exception as error:  # noqa: BLE001  # raised in each operation that needed it
                failures[directory] = error
        for number, directory in waiting.items():
            failure = failures.get(directory)
            advance(number, failure if failure is None else _another(failure))
    return outcomes


def _another(failure: Exception) -> Exception:
    """Return a copy: each operation's caller raises its own, and adds notes to it."""
    other = copy.copy(failure)
    other.__cause__ = failure.__cause__
    return other


def raise_failure(outcomes: list[BaseException | None]) -> None:
    """Raise what the only one of some outcomes is, if it is a failure."""
    failure = outcomes.pop()  # popped: the frame below holds the exception, which holds the frame
    if failure is not None:
        try:
            raise failure
        finally:
            del failure
