"""`multispool stats`: how much a spool holds, and how that has changed since an earlier look."""

import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from trio_multispool.cli import output
from trio_multispool.cli.ages import age_of, human_age, human_size
from trio_multispool.cli.arguments import AsJson, OneQueue, SpoolPath
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.progress import counting
from trio_multispool.cli.render import table
from trio_multispool.cli.spools import AnyStorage, looking, require_queues
from trio_multispool.clock import wall_clock
from trio_multispool.errors import DataNotFound
from trio_multispool.storage.requests import Item

_MINUTE: Final = 60


class Amount(msgspec.Struct):
    """How much there is of one queue."""

    queue: str
    entries: int = 0
    available: int = 0
    waiting: int = 0
    checked_out: int = 0
    quarantined: int = 0
    metadata_bytes: int = 0
    data_bytes: int = 0
    oldest_at: datetime.datetime | None = None

    def age(self, now: float) -> float | None:
        """Return how many seconds old the oldest is."""
        return None if self.oldest_at is None else age_of(self.oldest_at, now)

    def add(self, item: Item, data_bytes: int) -> None:
        """Count an entry."""
        self.entries += 1
        state = item.place.state.name.lower()  # as the fields above are called
        setattr(self, state, getattr(self, state) + 1)
        self.metadata_bytes += item.size
        self.data_bytes += data_bytes
        if self.oldest_at is None or item.modified_at < self.oldest_at:
            self.oldest_at = item.modified_at


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
    spool: SpoolPath,
    queue: OneQueue = None,
    /,
    *,
    since: Annotated[
        Path | None,
        Parameter(help="A file that an earlier look wrote with `--json`; also shows how each queue has changed."),
    ] = None,
    as_json: AsJson = False,
) -> int:
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
    with looking(spool) as storage:
        if queue is not None:
            require_queues(storage, [queue])
        now = wall_clock()
        look = _look(storage, queue, now)
    changes = None if earlier is None else _changes(earlier, look)
    if as_json:
        output.document(_document(look, changes, now))
    else:
        _print(look, changes, now)
    return Exit.SUCCESS


def _look(storage: AnyStorage, queue: str | None, now: float) -> Look:
    amounts = {name: Amount(name) for name in (storage.queues() if queue is None else [queue])}
    with counting("entries", lambda: storage.count(queue)) as count:
        for item in storage.inventory(queue):
            name = item.place.queue
            amounts.setdefault(name, Amount(name)).add(item, _data_bytes(storage, item.name))
            count()
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return Look(output.as_text(storage.location), at, [amounts[name] for name in sorted(amounts)])


def _data_bytes(storage: AnyStorage, name: str) -> int:
    try:
        return storage.stat_data(name).size
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
        data_bytes = amount.data_bytes - was.data_bytes
        found.append(Change(amount.queue, entries, data_bytes, entries / seconds * _MINUTE))
    return Changes(earlier.at, seconds, found)


def _document(look: Look, changes: Changes | None, now: float) -> dict[str, object]:
    document: dict[str, object] = {
        "spool": look.spool,
        "at": look.at,
        "queues": [msgspec.structs.asdict(amount) | {"oldest_age": amount.age(now)} for amount in look.queues],
    }
    if changes is not None:
        document["since"] = changes
    return document


def _print(look: Look, changes: Changes | None, now: float) -> None:
    amounts = [*look.queues, _sum(look.queues)] if len(look.queues) > 1 else look.queues
    ages = [amount.age(now) for amount in amounts]
    columns = {
        "QUEUE": [output.printable(amount.queue) for amount in amounts],
        "ENTRIES": [str(amount.entries) for amount in amounts],
        "AVAILABLE": [str(amount.available) for amount in amounts],
        "METADATA": [human_size(amount.metadata_bytes) for amount in amounts],
        "DATA": [human_size(amount.data_bytes) for amount in amounts],
        "OLDEST": ["-" if age is None else human_age(age) for age in ages],
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
    return Amount(
        "(all)",
        entries=sum(amount.entries for amount in amounts),
        available=sum(amount.available for amount in amounts),
        metadata_bytes=sum(amount.metadata_bytes for amount in amounts),
        data_bytes=sum(amount.data_bytes for amount in amounts),
        oldest_at=min((amount.oldest_at for amount in amounts if amount.oldest_at is not None), default=None),
    )
