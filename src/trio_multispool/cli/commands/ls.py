"""`multispool ls`: what a spool holds, by queue or by entry."""

import datetime
from collections import Counter
from collections.abc import Callable
from typing import Annotated

import msgspec
from cyclopts import Parameter

from trio_multispool.cli import durations, output
from trio_multispool.cli.arguments import AsJson, Location, OneQueue
from trio_multispool.cli.commands.pause import described
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.progress import counting
from trio_multispool.cli.render import table
from trio_multispool.cli.spools import AnyStorage, looking
from trio_multispool.looks import owners
from trio_multispool.looks.ages import age_of, human_age, human_size, told_progress
from trio_multispool.looks.histogram import FIRST, Histogram, edges, headers, short_count
from trio_multispool.looks.pauses import until
from trio_multispool.model.cancellation import CancelRequest
from trio_multispool.model.lifecycle import State
from trio_multispool.model.pauses import Pause, in_force
from trio_multispool.model.times import aware
from trio_multispool.model.types import T
from trio_multispool.storage.requests import Item, Owner
from trio_multispool.storage.upkeep import is_adopted

_NOBODY = Owner("", 0)


class Counts(msgspec.Struct):
    """How many entries of one queue are in which state."""

    queue: str
    available: int = 0
    waiting: int = 0
    checked_out: int = 0
    quarantined: int = 0
    oldest_at: datetime.datetime | None = None
    """When the metadata of the oldest of them was written, or of the oldest available one, as the command has it."""

    def age(self, now: float) -> float | None:
        """Return how many seconds old that one is."""
        return None if self.oldest_at is None else age_of(self.oldest_at, now)

    def count(self, item: Item) -> None:
        """Count an entry."""
        state = item.place.state.name.lower()  # as the fields above are called
        setattr(self, state, getattr(self, state) + 1)

    def see(self, written_at: datetime.datetime) -> None:
        """Take note of an entry that counts for the age."""
        self.oldest_at = earlier(self.oldest_at, written_at)


class Tally(Counts):
    """What is counted of one queue."""

    next_due: datetime.datetime | None = None
    owners: Counter[Owner | None] = msgspec.field(default_factory=Counter)
    ages: Histogram | None = None

    def add(self, item: Item, now: float) -> None:
        """Count an entry."""
        self.count(item)
        if item.place.state is State.AVAILABLE:
            self.see(item.modified_at)
            if self.ages is not None:
                self.ages.add(age_of(item.modified_at, now))
        elif item.place.state is State.WAITING:
            self.next_due = earlier(self.next_due, item.due_at)
        elif item.place.state is State.CHECKED_OUT:
            self.owners[item.owner] += 1


def earlier(one: datetime.datetime | None, other: datetime.datetime | None) -> datetime.datetime | None:
    """Return the earlier of two times, or the one that there is."""
    return min(one, other) if one is not None and other is not None else one or other


def ls(  # noqa: PLR0913  # what a person can say on the command line
    spool: Location,
    queue: OneQueue = None,
    /,
    *,
    long: Annotated[bool, Parameter(alias="-l", help="List the entries, not only counts.")] = False,
    ages: Annotated[
        bool, Parameter(alias="-a", help="Count available entries by age: up to 5 minutes, 10, 20 and so on.")
    ] = False,
    ages_from: Annotated[
        str | None,
        Parameter(help="The same, with another first age, for example `30s` or `1h`; each next age is double."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a spool holds.

    For each queue: how many entries are available, the age of the oldest (since its metadata was written), how many
    are checked out and by which process, how many wait for their time and when the next is due, and how many were set
    aside in quarantine. An owner is `unknown` if it died (its entries come back as soon as somebody reads the queue) or
    if the kernel does not show it: `/proc/locks` leaves out other containers, and files on btrfs and overlayfs.

    With `--ages`, a histogram of ages instead: a column for entries younger than 5 minutes, one for those younger than
    10, and so on. A queue that keeps up has its entries on the left. The further to the right they are, the longer the
    queue has been stuck.

    It only looks: nothing is locked, recovered or written. Counting a queue of a million entries takes seconds, and
    little memory (`--long` holds and sorts them).

    ```console
    $ multispool ls var/mail
    $ multispool ls var/mail --ages
    $ multispool ls var/mail send --long
    ```
    """
    limits = _limits(ages_from, wanted=ages, long=long)
    items: list[Item] = []

    def add(tally: Tally, item: Item) -> None:
        tally.add(item, now)
        if long:
            items.append(item)

    with looking(spool, queue) as storage:
        now = storage.now()
        ordered = count_all(
            storage, queue, lambda name: Tally(name, ages=None if limits is None else Histogram(limits)), add
        )
        items.sort(key=lambda item: (item.place.queue, item.name))
        asked = _asked_to_cancel(storage, items)
        pauses = in_force(storage.pauses(), now)
        path, adopted = storage.location, is_adopted(storage)
    if as_json:
        found: dict[str, object] = {
            "spool": output.as_text(path),
            "adopted": adopted,
            "queues": [_tally_document(tally, now, limits, pauses) for tally in ordered],
        }
        if long:
            found["entries"] = [item_document(item, now, asked.get(item.name)) for item in items]
        output.document(found)
        return
    if long:
        _print_items(items, asked, now)
    elif limits is not None:
        _print_ages(ordered, limits)
    else:
        _print_tallies(ordered, pauses, now)
    if not adopted:
        note = f"note: {path!r} is not adopted (it has no .spool.json): nothing comes back from dead processes"
        output.complain(f"{note}; see multispool adopt --help")


def _limits(first: str | None, *, wanted: bool, long: bool) -> list[float] | None:
    """Return the ages between the buckets, or `None` if no histogram is wanted."""
    if first is None and not wanted:
        return None
    if long:
        raise Failure("--long and --ages exclude each other", Exit.USAGE)
    seconds = FIRST if first is None else durations.parse(first)
    if not seconds:
        raise Failure(f"--ages-from wants more than {first!r}", Exit.USAGE)
    return edges(seconds)


def count_all(
    storage: AnyStorage, queue: str | None, make: Callable[[str], T], add: Callable[[T, Item], None]
) -> list[T]:
    """Count the entries of each queue, or of one, without holding any: `make` what counts, and `add` each to it."""
    counts = {name: make(name) for name in (storage.queues() if queue is None else [queue])}
    with counting("entries", lambda: storage.count(queue)) as count:
        for item in storage.inventory(queue):
            name = item.place.queue
            if name not in counts:  # of a queue that is gone, only what was set aside is left
                counts[name] = make(name)
            add(counts[name], item)
            count()
    return [counts[name] for name in sorted(counts)]


def item_document(item: Item, now: float, asked: CancelRequest | None = None) -> dict[str, object]:
    """Describe an entry for a script."""
    return {
        "name": item.name,
        "queue": item.place.queue,
        "state": item.place.state.value,
        "owner": owners.described(item.owner),
        "metadata_size": item.size,
        "modified_at": item.modified_at,
        "age": age_of(item.modified_at, now),
        "due_at": item.due_at,
        "progress": None if item.progress is None else {"done": item.progress.done, "message": item.progress.message},
        "cancellation": None if asked is None else {"at": aware(asked.at), "reason": asked.reason},
    }


def _tally_document(
    tally: Tally, now: float, limits: list[float] | None, pauses: dict[str, Pause]
) -> dict[str, object]:
    by_process = sorted(tally.owners.items(), key=lambda counted: (counted[0] is None, counted[0] or _NOBODY))
    document: dict[str, object] = {
        "queue": tally.queue,
        "available": tally.available,
        "oldest_at": tally.oldest_at,
        "oldest_age": tally.age(now),
        "waiting": tally.waiting,
        "next_due_at": tally.next_due,
        "checked_out": tally.checked_out,
        "owners": [{"owner": owners.described(owner), "entries": number} for owner, number in by_process],
        "quarantined": tally.quarantined,
        "pause": described(pauses.get(tally.queue)),
    }
    if tally.ages is not None and limits is not None:
        bounds: list[float | None] = [*limits, None]
        counted = zip(bounds, tally.ages.counts, strict=True)
        document["ages"] = [{"below": below, "entries": entries} for below, entries in counted]
    return document


def _print_tallies(tallies: list[Tally], pauses: dict[str, Pause], now: float) -> None:
    columns = {
        "QUEUE": [output.printable(tally.queue) for tally in tallies],
        "AVAILABLE": [str(tally.available) for tally in tallies],
        "OLDEST": ["-" if (age := tally.age(now)) is None else human_age(age) for tally in tallies],
        "CHECKED OUT": [str(tally.checked_out) for tally in tallies],
        "BY": [_told_owners(tally) for tally in tallies],
    }
    if any(tally.waiting for tally in tallies):
        columns["WAITING"] = [str(tally.waiting) for tally in tallies]
        columns["NEXT DUE"] = [_told_due(tally.next_due, now) for tally in tallies]
    if any(tally.quarantined for tally in tallies):
        columns["QUARANTINED"] = [str(tally.quarantined) for tally in tallies]
    if pauses:
        ends = {queue: output.printable(until(pause, now)) for queue, pause in pauses.items()}
        columns["PAUSED"] = [ends.get(tally.queue, "-") for tally in tallies]
    table(columns, numbers=columns.keys() - {"QUEUE", "BY", "PAUSED"})


def _told_due(due_at: datetime.datetime | None, now: float) -> str:
    """Say how long a waiting entry has until it is due."""
    if due_at is None:
        return "-"
    seconds = due_at.timestamp() - now
    return f"in {human_age(seconds)}" if seconds > 0 else "now"


def _print_ages(tallies: list[Tally], limits: list[float]) -> None:
    found = [(output.printable(tally.queue), tally.available, tally.ages.counts) for tally in tallies if tally.ages]
    if len(found) > 1:
        by_bucket = [sum(counts) for counts in zip(*(counts for *_, counts in found), strict=True)]
        found.append(("(all)", sum(by_bucket), by_bucket))
    columns = {"QUEUE": [queue for queue, *_ in found], "TOTAL": [short_count(total) for _, total, _ in found]}
    for bucket, header in enumerate(headers(limits)):
        columns[header] = [short_count(counts[bucket]) if counts[bucket] else "-" for *_, counts in found]
    # One space between the columns: that leaves a queue's name 23 of 80.
    table(columns, numbers=columns.keys() - {"QUEUE"}, gap=1)


def _told_owners(tally: Tally) -> str:
    told = [
        owners.told(owner) if number == tally.checked_out else f"{owners.told(owner)} ({number})"
        for owner, number in tally.owners.most_common()
    ]
    return ", ".join(told) or "-"


def _asked_to_cancel(storage: AnyStorage, items: list[Item]) -> dict[str, CancelRequest]:
    """Return the requests to cancel entries, by their names."""
    asked = frozenset(storage.asked_to_cancel()) if items else frozenset[str]()
    found = ((each.name, storage.cancellation(each.place.queue, each.name)) for each in items if each.name in asked)
    return {name: request for name, request in found if request is not None}


def _print_items(items: list[Item], asked: dict[str, CancelRequest], now: float) -> None:
    columns = {
        "NAME": [output.printable(item.name) for item in items],
        "QUEUE": [output.printable(item.place.queue) for item in items],
        "STATE": [item.place.state.value + (", cancel asked" if item.name in asked else "") for item in items],
        "BY": [owners.told(item.owner) if item.place.state is State.CHECKED_OUT else "-" for item in items],
        "METADATA": [human_size(item.size) for item in items],
        "AGE": [human_age(age_of(item.modified_at, now)) for item in items],
    }
    if any(item.due_at is not None for item in items):
        columns["DUE"] = [_told_due(item.due_at, now) for item in items]
    if any(item.progress is not None for item in items):
        told = ["-" if item.progress is None else told_progress(item.progress) for item in items]
        columns["PROGRESS"] = [output.printable(each) for each in told]
    table(columns, numbers={"METADATA", "AGE", "DUE"})
