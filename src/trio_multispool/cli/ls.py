"""`multispool ls`: what a spool holds, by queue or by entry."""

import datetime
from collections import Counter
from typing import Annotated

import msgspec
from cyclopts import Parameter

from trio_multispool.cli import output, owners
from trio_multispool.cli.ages import age_of, human_age, human_size
from trio_multispool.cli.arguments import AsJson, SpoolPath
from trio_multispool.cli.completing import queue_names
from trio_multispool.cli.exits import Exit
from trio_multispool.cli.opening import looking, require_queues
from trio_multispool.cli.progress import counting
from trio_multispool.cli.render import table
from trio_multispool.clock import wall_clock
from trio_multispool.lifecycle import State
from trio_multispool.storage.protocol import Item


class Tally(msgspec.Struct):
    """What is counted of one queue."""

    queue: str
    available: int = 0
    checked_out: int = 0
    quarantined: int = 0
    oldest: datetime.datetime | None = None
    owners: Counter[int | None] = msgspec.field(default_factory=Counter)

    def add(self, item: Item) -> None:
        """Count an entry."""
        if item.place.state is State.AVAILABLE:
            self.available += 1
            self.oldest = item.modified_at if self.oldest is None else min(self.oldest, item.modified_at)
        elif item.place.state is State.CHECKED_OUT:
            self.checked_out += 1
            self.owners[item.owner] += 1
        else:
            self.quarantined += 1


def ls(
    spool: SpoolPath,
    queue: Annotated[str | None, Parameter(name="QUEUE", help="Only this queue.", completer=queue_names)] = None,
    /,
    *,
    long: Annotated[
        bool,
        Parameter(name=["--long", "-l"], negative="", show_default=False, help="List the entries, not only counts."),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Show what a spool holds.

    For each queue: how many entries are available, the age of the oldest (since its metadata was written), how many
    are checked out and by which process, and how many were set aside in quarantine. An owner is `unknown` if it died
    (its entries come back as soon as somebody reads the queue) or if the kernel does not show it: `/proc/locks` leaves
    out other containers, and files on btrfs and overlayfs.

    It only looks: nothing is locked, recovered or written.

    ```console
    $ multispool ls var/mail
    $ multispool ls var/mail send --long
    ```
    """
    with looking(spool) as storage:
        if queue is not None:
            require_queues(storage, [queue])
        tallies = {name: Tally(name) for name in (storage.queues() if queue is None else [queue])}
        items: list[Item] = []
        with counting("entries") as count:
            for item in storage.inventory(queue):
                tallies.setdefault(item.place.queue, Tally(item.place.queue)).add(item)
                if long:
                    items.append(item)
                count()
        ordered = [tallies[name] for name in sorted(tallies)]
        items.sort(key=lambda item: (item.place.queue, item.name))
        path, adopted = storage.path, storage.adopted
    now = wall_clock()
    if as_json:
        found: dict[str, object] = {
            "spool": output.as_text(path),
            "adopted": adopted,
            "queues": [_tally_document(tally, now) for tally in ordered],
        }
        if long:
            found["entries"] = [item_document(item, now) for item in items]
        output.document(found)
        return Exit.SUCCESS
    if long:
        _print_items(items, now)
    else:
        _print_tallies(ordered, now)
    if not adopted:
        note = f"note: {path!r} is not adopted (it has no .spool.json): nothing comes back from dead processes"
        output.complain(f"{note}; see multispool adopt --help")
    return Exit.SUCCESS


def item_document(item: Item, now: float) -> dict[str, object]:
    """Describe an entry for a script."""
    return {
        "name": item.name,
        "queue": item.place.queue,
        "state": item.place.state.value,
        "owner": owners.described(item.owner),
        "metadata_size": item.size,
        "modified_at": item.modified_at,
        "age": age_of(item.modified_at, now),
    }


def _tally_document(tally: Tally, now: float) -> dict[str, object]:
    by_process = sorted(tally.owners.items(), key=lambda counted: (counted[0] is None, counted[0] or 0))
    return {
        "queue": tally.queue,
        "available": tally.available,
        "oldest_at": tally.oldest,
        "oldest_age": None if tally.oldest is None else age_of(tally.oldest, now),
        "checked_out": tally.checked_out,
        "owners": [{"owner": owners.described(pid), "entries": number} for pid, number in by_process],
        "quarantined": tally.quarantined,
    }


def _print_tallies(tallies: list[Tally], now: float) -> None:
    headers = ["QUEUE", "AVAILABLE", "OLDEST", "CHECKED OUT", "BY"]
    rows = [
        [
            output.printable(tally.queue),
            str(tally.available),
            "-" if tally.oldest is None else human_age(age_of(tally.oldest, now)),
            str(tally.checked_out),
            _told_owners(tally),
        ]
        for tally in tallies
    ]
    if any(tally.quarantined for tally in tallies):
        headers.append("QUARANTINED")
        for row, tally in zip(rows, tallies, strict=True):
            row.append(str(tally.quarantined))
    table(headers, rows, numbers={"AVAILABLE", "OLDEST", "CHECKED OUT", "QUARANTINED"})


def _told_owners(tally: Tally) -> str:
    told = [
        owners.told(pid) if number == tally.checked_out else f"{owners.told(pid)} ({number})"
        for pid, number in tally.owners.most_common()
    ]
    return ", ".join(told) or "-"


def _print_items(items: list[Item], now: float) -> None:
    rows = [
        [
            output.printable(item.name),
            output.printable(item.place.queue),
            item.place.state.value,
            owners.told(item.owner) if item.place.state is State.CHECKED_OUT else "-",
            human_size(item.size),
            human_age(age_of(item.modified_at, now)),
        ]
        for item in items
    ]
    table(["NAME", "QUEUE", "STATE", "BY", "METADATA", "AGE"], rows, numbers={"METADATA", "AGE"})
