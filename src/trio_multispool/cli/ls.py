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
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.opening import looking, require_queues
from trio_multispool.cli.progress import counting
from trio_multispool.cli.render import table
from trio_multispool.clock import wall_clock
from trio_multispool.lifecycle import State
from trio_multispool.storage.directory import DirectoryStorage
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
    queue: Annotated[
        str | None, Parameter(name="QUEUE", help="Only this queue.", completer=queue_names)
    ] = None,
    /,
    *,
    long: Annotated[bool, Parameter(name=["--long", "-l"], negative="", help="List the entries, not only counts.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show what a spool holds.

    For each queue: how many entries are available, the age of the oldest (since its metadata was written), how many are
    checked out and by which process, and how many were set aside in quarantine. An owner is `unknown` if it died (its
    entries come back as soon as somebody reads the queue) or if the kernel does not show it: `/proc/locks` leaves out other
    containers, and files on btrfs and overlayfs.

    It only looks: nothing is locked, recovered or written.

    ```console
    $ multispool ls var/mail
    $ multispool ls var/mail send --long
    ```
    """
    with looking(spool) as storage:
        if queue is not None and queue not in _quarantined_queues(storage, queue):
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
        output.complain(
            f"note: {path!r} is not adopted (it has no .spool.json): what a dead process had checked out is not brought "
            "back; see multispool adopt --help"
        )
    return Exit.SUCCESS
