"""`multispool show`: everything that is known about one entry."""

import sys

from trio_multispool.cli import histories, metadata, output, owners
from trio_multispool.cli.ages import age_of, human_age, human_size, human_time, told_progress
from trio_multispool.cli.arguments import AsJson, EntryName, SpoolPath
from trio_multispool.cli.commands.ls import item_document
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.finding import find
from trio_multispool.cli.spools import AnyStorage, looking
from trio_multispool.clock import wall_clock
from trio_multispool.errors import DataNotFound, EntryNotFound
from trio_multispool.model.attempts import history_in
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.requests import Item, Stat

_TRIES = 10


def show(spool: SpoolPath, name: EntryName, /, *, as_json: AsJson = False) -> int:
    """Show everything that is known about an entry.

    Where it is, who has it, the progress that its owner reports, its age, its metadata unchanged (over several lines
    if it is JSON), and the size and path of its data. For an entry in quarantine, why it was set aside. For one that
    failed in a reader with `retry=`, each attempt and why it failed, with the last traceback. It only looks: nothing is
    locked or written.

    ```console
    $ multispool show var/mail 20261124T013810.123456789Z-8f31c2aa
    ```
    """
    with looking(spool) as storage:
        item, raw = _read(storage, name)
        data, path = _data(storage, name), storage.data_path(name)
        reason = storage.quarantine_reason(name) if item.place.state is State.QUARANTINED else None
        history = history_in(storage.notes(name))
    now = wall_clock()
    if as_json:
        document = item_document(item, now) | metadata.for_script(raw)
        document["data_size"] = None if data is None else data.size
        document["data_modified_at"] = None if data is None else data.modified_at
        document["data_path"] = None if data is None else output.as_text(str(path))
        document["quarantine_reason"] = reason
        document["history"] = None if history is None else histories.history_document(history)
        output.document(document)
        return Exit.SUCCESS
    _print(item, data, str(path), reason, now)
    if history is not None:
        for line in histories.told_history(history, at_work=item.place.state is State.CHECKED_OUT):
            output.line(output.printable(line))
    _print_metadata(raw)
    return Exit.SUCCESS


def _read(storage: AnyStorage, name: str) -> tuple[Item, bytes]:
    """Find an entry and read its metadata, again if it was moved between the two."""
    for _ in range(_TRIES):
        item = find(storage, name)
        try:
            return item, storage.read_metadata(item.place, name)
        except EntryNotFound:
            continue
    raise Failure(f"entry {name!r} is moving too fast to be read", Exit.BUSY)


def _data(storage: AnyStorage, name: str) -> Stat | None:
    try:
        return storage.stat_data(name)
    except DataNotFound:
        return None


def _print(item: Item, data: Stat | None, path: str, reason: str | None, now: float) -> None:
    age = human_age(age_of(item.modified_at, now))
    lines = [("name", item.name), ("queue", item.place.queue), ("state", item.place.state.value)]
    if item.place.state is State.CHECKED_OUT:
        lines.append(("by", owners.told(item.owner)))
    if item.due_at is not None:
        lines.append(("due", human_time(item.due_at)))
    if item.progress is not None:
        lines.append(("progress", told_progress(item.progress)))
    if reason is not None:
        lines.append(("reason", reason))
    lines.append(("modified", f"{human_time(item.modified_at)} ({age} ago)"))
    if data is None:
        lines.append(("data", "missing"))
    else:
        lines += [("data", human_size(data.size)), ("path", path)]
    lines.append(("metadata", human_size(item.size)))
    output.line("\n".join(f"{label:<10}{output.printable(text)}" for label, text in lines))


def _print_metadata(raw: bytes) -> None:
    shown = metadata.for_person(raw, terminal=output.is_terminal(sys.stdout))
    output.raw(shown if shown.endswith(b"\n") or not shown else shown + b"\n")
