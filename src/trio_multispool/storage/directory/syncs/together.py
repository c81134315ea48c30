"""Operations share their syncs: several operations run together, and their needs are synced together.

Theory. An operation on disk is a row of steps with syncs between them: what it wrote must be on disk before its commit,
and the commit before the acknowledgement. A sync of a directory covers every rename that returned before the sync
began, by any process. So an operation is a generator. It yields what must be synced before it goes on: files that it
has written, and directories. If it runs alone, each yield is a sync. If several run together, each goes forward to its
next yield; then all their needs are synced, each directory once; then all go on. That keeps the order of steps within
each operation. Its safety depends only on that order.

Several files are first all handed to the disk, and then synced one after the other. On a file system with a journal,
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
"""A thing to sync: a file, or a directory by its name."""

Steps: TypeAlias = "Generator[Sequence[Need], None, None]"
"""An operation. It yields what must be synced before it goes on; a failed sync is raised at that yield."""


def run_together(
    sync: Callable[[Iterable[Need]], dict[Need, Exception]], operations: Sequence[Steps]
) -> list[BaseException | None]:
    """Run all operations to their ends; return for each, in order, what it raised, or `None`.

    `sync` syncs distinct needs, and returns those that failed.
    """
    outcomes: list[BaseException | None] = [None] * len(operations)
    needs: dict[int, Sequence[Need]] = {}

    waiting: dict[int, Sequence[Need]] = dict.fromkeys(range(len(operations)), ())
    failures: dict[Need, Exception] = {}
    while waiting:
        needs.clear()
        for number, several in waiting.items():
            operation = operations[number]
            failed = [failures[need] for need in several if need in failures] if failures else ()
            try:
                needs[number] = operation.throw(_another(failed[0])) if failed else next(operation)
            except StopIteration:
                continue
            except BaseException as error:  # noqa: BLE001  # returned to the caller of the operation
                outcomes[number] = error
        waiting = dict(needs)
        if waiting:
            failures = sync(dict.fromkeys(need for several in waiting.values() for need in several))
    return outcomes


def _another(failure: Exception) -> Exception:
    """Return a copy: each caller of an operation raises its own copy, and adds notes to it."""
    other = copy.copy(failure)
    other.__cause__ = failure.__cause__
    return other
