"""`multispool show`: everything that is known about one entry."""

import sys

from trio_multispool.cli import histories, metadata, output
from trio_multispool.cli.arguments import AsJson, EntryName, Location
from trio_multispool.cli.commands.ls import item_document
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.finding import find
from trio_multispool.cli.spools import AnyStorage, looking
from trio_multispool.errors import EntryNotFound
from trio_multispool.looks import owners
from trio_multispool.looks.facts import facts, known
from trio_multispool.looks.metadata import for_person
from trio_multispool.model.attempts import history_in
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.requests import Item

_TRIES = 10


def show(spool: Location, name: EntryName, /, *, as_json: AsJson = False) -> None:
    """Show everything that is known about an entry.

    Where it is, who has it, the progress that its owner reports, when and why somebody asked to cancel it, its age, its
    metadata unchanged (over several lines if it is JSON), and the size and path of its data. For an entry in
    quarantine, why it was set aside. For one that failed in `work --attempts`, or in a reader with `retry=`, each
    attempt and why it failed, with the last traceback. It only looks: nothing is locked or written.

    ```console
    $ multispool show var/mail 20261124T013810.123456789Z-8f31c2aa
    ```
    """
    with looking(spool) as storage:
        item, raw = _read(storage, name)
        found, history, now = known(storage, item), history_in(storage.notes(name)), storage.now()
    if as_json:
        document = item_document(item, now, found.cancellation) | metadata.for_script(raw)
        document["data_size"] = None if found.data is None else found.data.size
        document["data_modified_at"] = None if found.data is None else found.data.modified_at
        document["data_path"] = None if found.data is None else found.path
        document["quarantine_reason"] = found.reason
        document["history"] = None if history is None else histories.history_document(history)
        output.document(document)
        return
    lines = [f"{label:<10}{told}" for label, told in facts(found, now, by=owners.told(item.owner))]
    if history is not None:
        at_work = item.place.state is State.CHECKED_OUT
        lines += histories.told_history(history, queue=item.place.queue, at_work=at_work)
    output.line("\n".join(map(output.printable, lines)))
    shown = for_person(raw, terminal=output.is_terminal(sys.stdout))
    output.raw(shown if shown.endswith(b"\n") or not shown else shown + b"\n")


def _read(storage: AnyStorage, name: str) -> tuple[Item, bytes]:
    """Find an entry and read its metadata, again if it was moved between the two."""
    for _ in range(_TRIES):
        item = find(storage, name)
        try:
            return item, storage.read_metadata(item.place, name)
        except EntryNotFound:
            continue
    raise Failure(f"entry {name!r} is moving too fast to be read", Exit.BUSY)
