"""What `mv`, `rm` and `retry` have in common: which entries, by name or selected, and what is said of them."""

from collections.abc import Iterator

from trio_multispool.cli import output
from trio_multispool.cli.checkouts import Task, settle_all
from trio_multispool.cli.exits import Failure
from trio_multispool.cli.finding import find_available
from trio_multispool.cli.selecting import selected
from trio_multispool.cli.spools import AnyStorage, Done, looking
from trio_multispool.errors import SpoolError
from trio_multispool.model.lifecycle import State


def carry_out(task: Task) -> int:
    """Settle the entries, or say what would be settled; tell what was, and return the exit code."""
    done, dry_run = Done(), task.options.dry_run
    with looking(task.spool, task.source, task.destination) as storage:
        code = _rehearse(task, storage, done) if dry_run else settle_all(task, storage, done)
    if task.options.as_json:
        to = {} if task.destination is None else {"to": task.destination}
        documents = [{"name": name, "from": source} | to for name, source in done.entries]
        output.outcome_document(documents, dry_run=dry_run)
    elif task.criteria is not None:
        output.outcome_sum(task.told(), len(done.entries), dry_run=dry_run)
    return code


def _rehearse(task: Task, storage: AnyStorage, done: Done) -> int:
    """Say what would be settled, note it in `done`, and return the exit code."""
    troubles = output.Troubles()
    for name, source in _would_settle(task, storage, troubles):
        done.entries.append((name, source))
        if not task.options.as_json:
            output.line(output.printable(f"{name}: would be {task.told(f' from {source}')}"))
    return troubles.code


def _would_settle(task: Task, storage: AnyStorage, troubles: output.Troubles) -> Iterator[tuple[str, str]]:
    """Yield the entries that would be settled, and where they are."""
    if task.criteria is None:
        for name in dict.fromkeys(task.names):
            try:
                yield name, find_available(storage, name, task.source)
            except (Failure, SpoolError) as error:
                troubles.tell(error)
        return
    for item in selected(storage, task.source, State.AVAILABLE, task.criteria, troubles):
        if item is not None and item.place.queue != task.destination:
            yield item.name, item.place.queue
