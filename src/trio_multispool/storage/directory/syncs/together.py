"""Operations that share their syncs: several are taken forward together, and what they wait for is synced together.

Theory. An operation on disk is a row of steps with syncs between them: what it wrote must be on disk before its
commit, and the commit before it is acknowledged. A sync of a directory covers every rename that returned before it
began, whoever made it. So an operation is written as a generator that yields what it needs synced before it goes on:
files that it has written, and directories. Run alone, each yield is a sync. Run together, all operations go forward to
where they need something, all of that is synced, each directory once, and all go on. That keeps the order of every
single operation, and is all that its safety rests on.

Several files are first all handed to the disk, and then synced one after the other: on a file system with a journal,
the first of these syncs then commits what all of them need, and the others find it done.

An operation that fails, or whose sync fails, ends with its exception; the others go on.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeAlias

from trio_multispool.storage.directory.disk.files import OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

Need: TypeAlias = OpenFile | str
"""What is to be synced: a file, or a directory by its name."""

Steps: TypeAlias = "Generator[Sequence[Need], None, None]"
"""An operation, yielding what must be synced before it goes on; a failed sync is raised there."""


def run_together(
    sync: Callable[[Iterable[Need]], dict[Need, Exception]], operations: Sequence[Steps]
) -> list[BaseException | None]:
    """Take all operations to their ends; return for each, in order, what it raised, or `None`.

    `sync` syncs different things, and returns those that failed.
    """
    outcomes: list[BaseException | None] = [None] * len(operations)
    needs: dict[int, Sequence[Need]] = {}

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
        waiting = dict(needs)
        needs.clear()
        failures = sync(dict.fromkeys(need for several in waiting.values() for need in several))
        for number, several in waiting.items():
            failure = next((failures[need] for need in several if need in failures), None)
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
