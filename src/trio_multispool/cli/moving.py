"""What `mv`, `rm` and `retry` have in common: which entries, by name or selected, and what is said of them."""

from trio_multispool.cli import output
from trio_multispool.cli.checkouts import Task, settle_all
from trio_multispool.cli.finding import each_named, find_available
from trio_multispool.cli.selecting import selected
from trio_multispool.cli.spools import AnyStorage, Done, looking
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
    if task.criteria is None:
        items = each_named(task.names, lambda name: find_available(storage, name, task.source), troubles)
    else:
        items = selected(storage, task.source, State.AVAILABLE, task.criteria, troubles)
    for item in items:
        if item is None or (task.criteria is not None and item.place.queue == task.destination):
            continue
        done.entries.append((item.name, item.place.queue))
        if not task.options.as_json:
            output.line(output.printable(f"{item.name}: would be {task.told(f' from {item.place.queue}')}"))
    return troubles.code
