"""What `mv`, `rm` and `retry` have in common: which entries, by name or selected, and what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_multispool.cli import output
from trio_multispool.cli.checkouts import Task, settle_all
from trio_multispool.cli.exits import Failure
from trio_multispool.cli.finding import find_available
from trio_multispool.cli.selecting import selected
from trio_multispool.cli.spools import Done, looking, require_queues
from trio_multispool.errors import SpoolError
from trio_multispool.model.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trio_multispool.cli.selecting import Criteria


def carry_out(task: Task, names: Sequence[str], criteria: Criteria | None) -> int:
    """Settle what is named, or fits `criteria`; say what was settled, and return the exit code."""
    with looking(task.spool) as storage:
        require_queues(storage, [queue for queue in (task.source, task.destination) if queue is not None])
    found: list[tuple[str, str]] = []
    if task.options.dry_run:
        troubles = output.Troubles()
        for name, source in _would_settle(task, names, criteria, troubles):
            found.append((name, source))
            if not task.options.as_json:
                output.line(f"{output.printable(name)}: would be {_done(task, source)}")
        code = troubles.code
    else:
        done = Done()
        found = done.entries
        code = settle_all(task, names, criteria, done)
    if task.options.as_json:
        documents = [_document(task, name, source) for name, source in found]
        output.outcome_document(documents, dry_run=task.options.dry_run)
    elif criteria is not None:
        output.outcome_line(_sum(task, len(found)), dry_run=task.options.dry_run)
    return code


def _would_settle(
    task: Task, names: Sequence[str], criteria: Criteria | None, troubles: output.Troubles
) -> Iterator[tuple[str, str]]:
    """Yield the entries that would be settled, and where they are."""
    with looking(task.spool) as storage:
        if criteria is None:
            for name in dict.fromkeys(names):
                try:
                    yield name, find_available(storage, name, task.source)
                except (Failure, SpoolError) as error:
                    troubles.tell(error)
            return
        for item in selected(storage, task.source, State.AVAILABLE, criteria, troubles):
            if item is not None and item.place.queue != task.destination:
                yield item.name, item.place.queue


def _document(task: Task, name: str, source: str) -> dict[str, str]:
    found = {"name": name, "from": source}
    return found if task.destination is None else found | {"to": task.destination}


def _done(task: Task, source: str) -> str:
    whence = output.printable(source)
    if task.destination is None:
        return f"removed from {whence}"
    return f"moved from {whence} to {output.printable(task.destination)}"


def _sum(task: Task, number: int) -> str:
    what = "1 entry" if number == 1 else f"{number} entries"
    return f"{what} {'would be ' if task.options.dry_run else ''}{output.printable(task.what)}"
