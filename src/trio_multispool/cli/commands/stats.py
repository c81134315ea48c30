"""`multispool stats`: how much a spool holds, and how that has changed since an earlier look."""

import datetime
import functools
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from trio_multispool.cli import output
from trio_multispool.cli.arguments import AsJson, Location, OneQueue
from trio_multispool.cli.commands.ls import Counts, count_all, earlier
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.render import table
from trio_multispool.cli.spools import AnyStorage, looking
from trio_multispool.errors import DataNotFound
from trio_multispool.looks.ages import human_age, human_size
from trio_multispool.storage.requests import Item

_MINUTE: Final = 60


class Amount(Counts):
    """How much there is of one queue."""

    entries: int = 0
    metadata_bytes: int = 0
    data_bytes: int = 0

    def add(self, item: Item, data_bytes: int) -> None:
        """Count an entry."""
        self.count(item)
        self.entries += 1
        self.metadata_bytes += item.size
        self.data_bytes += data_bytes
        self.see(item.modified_at)


class Look(msgspec.Struct):
    """What one look at a spool found: the document that `--json` writes and `--since` reads."""

    spool: str
    at: datetime.datetime
    queues: list[Amount]


class Change(msgspec.Struct):
    """How a queue has changed since an earlier look."""

    queue: str
    entries: int
    data_bytes: int
    entries_per_minute: float


class Changes(msgspec.Struct):
    """How a spool has changed since an earlier look."""

    at: datetime.datetime
    seconds: float
    queues: list[Change]


def stats(
    spool: Location,
    queue: OneQueue = None,
    /,
    *,
    since: Annotated[
        Path | None,
        Parameter(help="A file that an earlier look wrote with `--json`; also shows how each queue has changed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how much a spool holds.

    For each queue: its entries, available, waiting, checked out and set aside, the bytes of their metadata and data,
    and the age of the oldest of them. With `--since`, also how many entries the queue has gained or lost since an
    earlier look, in all and per minute. Entries that came and went in between are not seen.

    It only looks: nothing is locked, recovered or written.

    ```console
    $ multispool stats var/mail
    $ multispool stats var/mail --json > before.json
    $ multispool stats var/mail --since before.json
    ```
    """
    earlier = None if since is None else _earlier(since)
    with looking(spool, queue) as storage:
        now = storage.now()
        amounts = count_all(storage, queue, Amount, lambda amount, item: amount.add(item, _data_bytes(storage, item)))
        look = Look(output.as_text(storage.location), datetime.datetime.fromtimestamp(now, datetime.UTC), amounts)
    changes = None if earlier is None else _changes(earlier, look)
    if as_json:
        queues = [msgspec.structs.asdict(amount) | {"oldest_age": amount.age(now)} for amount in look.queues]
        found: dict[str, object] = {"spool": look.spool, "at": look.at, "queues": queues}
        output.document(found if changes is None else found | {"since": changes})
    else:
        _print(look, changes, now)


def _data_bytes(storage: AnyStorage, item: Item) -> int:
    if item.data_size is not None:
        return item.data_size
    try:
        return storage.stat_data(item.name).size
    except DataNotFound:  # the entry has gone since it was listed, or has lost its data, which `fsck` tells
        return 0


def _earlier(path: Path) -> Look:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Look)
    except OSError as error:
        raise Failure(f"cannot read {str(path)!r}: {error.strerror}") from error
    except ValueError as error:  # msgspec's errors are
        raise Failure(f"{str(path)!r} is not what `multispool stats --json` writes: {error}", Exit.USAGE) from error


def _changes(earlier: Look, look: Look) -> Changes:
    seconds = (look.at - earlier.at).total_seconds()
    if earlier.spool != look.spool:
        raise Failure(f"--since is of another spool, {earlier.spool!r}", Exit.USAGE)
    if seconds <= 0:
        raise Failure("--since is no earlier look: it was made now, or later by this machine's clock", Exit.USAGE)
    before = {amount.queue: amount for amount in earlier.queues}
    found: list[Change] = []
    for amount in look.queues:
        was = before.get(amount.queue, Amount(amount.queue))
        entries = amount.entries - was.entries
        found.append(Change(amount.queue, entries, amount.data_bytes - was.data_bytes, entries / seconds * _MINUTE))
    return Changes(earlier.at, seconds, found)


def _print(look: Look, changes: Changes | None, now: float) -> None:
    amounts = [*look.queues, _sum(look.queues)] if len(look.queues) > 1 else look.queues
    columns = {
        "QUEUE": [output.printable(amount.queue) for amount in amounts],
        "ENTRIES": [str(amount.entries) for amount in amounts],
        "AVAILABLE": [str(amount.available) for amount in amounts],
        "METADATA": [human_size(amount.metadata_bytes) for amount in amounts],
        "DATA": [human_size(amount.data_bytes) for amount in amounts],
        "OLDEST": ["-" if (age := amount.age(now)) is None else human_age(age) for amount in amounts],
    }
    if changes is not None:
        found = [(change.entries, change.entries_per_minute) for change in changes.queues]
        if len(found) > 1:
            found.append((sum(entries for entries, _ in found), sum(rate for _, rate in found)))
        columns["CHANGE"] = [f"{entries:+}" if entries else "0" for entries, _ in found]
        columns["A MINUTE"] = [f"{rate:+.1f}" if entries else "0" for entries, rate in found]
    table(columns, numbers=columns.keys() - {"QUEUE"})


def _sum(amounts: list[Amount]) -> Amount:
    """Return what is told of all queues together."""
    found = Amount("(all)", oldest_at=functools.reduce(earlier, (amount.oldest_at for amount in amounts)))
    for field in ("entries", "available", "metadata_bytes", "data_bytes"):
        setattr(found, field, sum(getattr(amount, field) for amount in amounts))
    return found
