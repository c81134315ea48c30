"""`multispool show`: everything that is known about one entry."""

import contextlib
import sys
from typing import NamedTuple

from trio_multispool.cli import histories, metadata, output, owners
from trio_multispool.cli.ages import age_of, human_age, human_size, human_time, told_progress
from trio_multispool.cli.arguments import AsJson, EntryName, Location
from trio_multispool.cli.commands.ls import item_document
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.finding import find
from trio_multispool.cli.spools import AnyStorage, looking
from trio_multispool.errors import DataNotFound, EntryNotFound
from trio_multispool.model.attempts import history_in
from trio_multispool.model.cancellation import NO_REASON, CancelRequest
from trio_multispool.model.lifecycle import State
from trio_multispool.model.times import aware
from trio_multispool.storage.requests import Item, Stat

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
    shown = metadata.for_person(raw, terminal=output.is_terminal(sys.stdout))
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


class Known(NamedTuple):
    """What is known about an entry besides its metadata."""

    item: Item
    data: Stat | None
    path: str | None
    """Where its data is, if it is in a file."""
    reason: str | None
    """Why it is in quarantine."""
    cancellation: CancelRequest | None
    """The request to cancel the work on it."""


def known(storage: AnyStorage, item: Item) -> Known:
    """Look up what an onlooker is not told of an entry."""
    data = None
    with contextlib.suppress(DataNotFound):
        data = storage.stat_data(item.name)
    reason = storage.quarantine_reason(item.name) if item.place.state is State.QUARANTINED else None
    path, request = storage.data_path(item.name), storage.cancellation(item.place.queue, item.name)
    return Known(item, data, None if path is None else output.as_text(str(path)), reason, request)


def facts(known: Known, now: float, *, by: str) -> list[tuple[str, str]]:
    """Return what is known for a person, labelled; `by` is said of who has it checked out."""
    item, age = known.item, human_age(age_of(known.item.modified_at, now))
    found = [
        ("name", item.name),
        ("queue", item.place.queue),
        ("state", item.place.state.value),
        ("by", by if item.place.state is State.CHECKED_OUT else None),
        ("due", None if item.due_at is None else human_time(item.due_at)),
        ("progress", None if item.progress is None else told_progress(item.progress)),
        ("cancel", None if known.cancellation is None else _told_request(known.cancellation, now)),
        ("reason", known.reason),
        ("modified", f"{human_time(item.modified_at)} ({age} ago)"),
        ("data", "missing" if known.data is None else human_size(known.data.size)),
        ("path", None if known.data is None else known.path),
        ("metadata", human_size(item.size)),
    ]
    return [(label, told) for label, told in found if told is not None]


def _told_request(request: CancelRequest, now: float) -> str:
    """Say when somebody has asked to cancel the work on an entry, and why."""
    asked_at = aware(request.at)
    return f"asked {human_time(asked_at)} ({human_age(age_of(asked_at, now))} ago): {request.reason or NO_REASON}"
