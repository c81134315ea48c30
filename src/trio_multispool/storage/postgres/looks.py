"""Looks at a store in PostgreSQL, which lock nothing and write nothing. Long ones go by pages of names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from trio_multispool.clock import wall_clock
from trio_multispool.errors import EntryNotFound
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.notes import PROGRESS, Progress, decode_key
from trio_multispool.model.times import aware
from trio_multispool.storage.postgres.claims import read_notes, with_attempts
from trio_multispool.storage.postgres.take import LETTERS, STATES
from trio_multispool.storage.requests import Item, Owner, Stat

if TYPE_CHECKING:
    from collections.abc import Iterator

    import msgspec

    from trio_multispool.storage.postgres.link import Links

_PAGE: Final = 1000

_ITEM: Final = """
    entry.name, entry.queue, entry.state::text, length(entry.metadata), entry.written_at, entry.due_at, entry.progress,
    owner.host, owner.pid, greatest(entry.written_at, entry.moved_at), entry.size
    FROM SCHEMA.entry AS entry LEFT JOIN SCHEMA.owner AS owner
        ON owner.id = entry.owner AND entry.state = 'c'"""

_INVENTORY: Final = f"""
    SELECT {_ITEM} WHERE entry.name > %(after)s AND entry.state = ANY(%(states)s::"char"[])
        AND (%(queue)s::text IS NULL OR entry.queue = %(queue)s)
    ORDER BY entry.name LIMIT %(most)s"""

_FIND: Final = f"SELECT {_ITEM} WHERE entry.name = %s AND entry.state IN ('a', 'w', 'c', 'q')"

_COUNT: Final = """
    SELECT count(*) FROM SCHEMA.entry WHERE state = ANY(%(states)s::"char"[])
        AND (%(queue)s::text IS NULL OR queue = %(queue)s)"""

_DEPTHS: Final = """
    SELECT queue, state::text, count(*) FROM SCHEMA.entry WHERE state IN ('a', 'w', 'c', 'q') GROUP BY queue, state"""

_QUEUES: Final = """
    SELECT name FROM SCHEMA.queue
    UNION SELECT DISTINCT queue FROM SCHEMA.entry WHERE state IN ('w', 'c', 'q')
    ORDER BY name"""

_NAMES: Final = """
    SELECT name FROM SCHEMA.entry WHERE queue = %s AND state = 'a' AND name > %s ORDER BY name LIMIT %s"""

_WAITING: Final = """
    SELECT due_at, name FROM SCHEMA.entry WHERE queue = %(queue)s AND state = 'w'
        AND (%(due_at)s::double precision IS NULL OR (due_at, name) > (%(due_at)s, %(name)s))
    ORDER BY due_at, name LIMIT %(most)s"""

_AT: Final = 'SELECT metadata FROM SCHEMA.entry WHERE name = %s AND queue = %s AND state = %s::"char"'

_STAT: Final = """
    SELECT length(metadata), written_at FROM SCHEMA.entry WHERE name = %s AND queue = %s AND state = %s::"char" """

_STAT_DATA: Final = """
    SELECT size, data_at FROM SCHEMA.entry WHERE name = %s AND state IN ('a', 'w', 'c', 'q')
        AND chunks = (SELECT count(*) FROM SCHEMA.chunk WHERE chunk.name = entry.name)"""

_TIME: Final = "SELECT extract(epoch FROM clock_timestamp())::double precision"

_NOTES: Final = "SELECT notes, begun, progress FROM SCHEMA.entry WHERE name = %s"

_CARRIER: Final = "SELECT carrier FROM SCHEMA.entry WHERE name = %s"

_REASON: Final = "SELECT reason FROM SCHEMA.entry WHERE name = %s AND state = 'q'"

_REMEMBERED: Final = "SELECT due_at FROM SCHEMA.entry WHERE name = %s AND state = 'k' AND due_at > %s"


_ALL_REMEMBERED: Final = """
    SELECT name, due_at FROM SCHEMA.entry WHERE state = 'k' AND due_at > %s AND name > %s ORDER BY name LIMIT %s"""

_REMEMBER_FOR: Final = "SELECT remember FROM SCHEMA.entry WHERE name = %s AND state IN ('a', 'w', 'c', 'q')"


def remembered(links: Links, now: float, after: str, most: int | None) -> list[tuple[str, float]]:
    """List the names that are remembered, and until when."""
    return [(name, until) for name, until in links.read("list names in", _ALL_REMEMBERED, (now, after, most))]


def remember_for(links: Links, name: str) -> float | None:
    """Look for how long the name of an entry is to be remembered."""
    rows = links.read("look for a name in", _REMEMBER_FOR, (name,))
    return rows[0][0] if rows else None


def _letters(state: State | None) -> list[str]:
    return list(STATES) if state is None else [LETTERS[state]] if state in LETTERS else []


def inventory(links: Links, queue: str | None, state: State | None, most: int | None) -> Iterator[Item]:
    """Yield every entry, or the first, by name. One that moves meanwhile is told of once."""
    after, left = "", math.inf if most is None else most
    while left > 0:
        page = min(_PAGE, left)
        values = {"after": after, "states": _letters(state), "queue": queue, "most": page}
        rows = links.read("look through", _INVENTORY, values)
        yield from map(_item, rows)
        if len(rows) < page:
            return
        after, left = rows[-1][0], left - len(rows)


def find(links: Links, name: str) -> Item | None:
    """Look for an entry."""
    rows = links.read("look for an entry in", _FIND, (name,))
    return _item(rows[0]) if rows else None


def _item(row: tuple[Any, ...]) -> Item:
    name, queue, letter, size, written_at, due_at, progress, host, pid, moved_at, data_size = row
    state = STATES[letter]
    return Item(
        name,
        Place(queue, state),
        size,
        aware(written_at),
        None if pid is None else Owner(host, pid),
        _progress(progress) if state is State.CHECKED_OUT else None,
        aware(due_at) if state is State.WAITING else None,
        None,
        moved_at,
        data_size,
    )


def _progress(raw: bytes | None) -> Progress | None:
    return decode_key(read_notes(raw), PROGRESS, Progress)


def count(links: Links, queue: str | None, state: State | None) -> int:
    """Count entries."""
    [(number,)] = links.read("count entries in", _COUNT, {"states": _letters(state), "queue": queue})
    return int(number)


def depths(links: Links) -> dict[Place, int]:
    """Count the entries in every place."""
    found = {Place(queue, state): 0 for queue in queues(links) for state in (State.AVAILABLE, State.CHECKED_OUT)}
    for queue, letter, number in links.read("count entries in", _DEPTHS):
        found[Place(queue, STATES[letter])] = number
    return found


def queues(links: Links) -> list[str]:
    """List the queues."""
    return [name for (name,) in links.read("list queues in", _QUEUES)]


def names(links: Links, queue: str, after: str, most: int | None) -> list[str]:
    """List what is available."""
    return [name for (name,) in links.read("list entries in", _NAMES, (queue, after, most))]


def waiting(links: Links, queue: str, after: tuple[float, str] | None, most: int | None) -> list[tuple[float, str]]:
    """List what waits."""
    due_at, name = (None, "") if after is None else after
    values = {"queue": queue, "due_at": due_at, "name": name, "most": most}
    return [(due, each) for due, each in links.read("list what waits in", _WAITING, values)]


def read_metadata(links: Links, place: Place, name: str) -> bytes:
    """Read the metadata of an entry."""
    rows = links.read("read an entry in", _AT, (name, place.queue, LETTERS[place.state]))
    if not rows:
        raise EntryNotFound(place.queue, name)
    return bytes(rows[0][0])


def stat(links: Links, place: Place, name: str) -> Stat:
    """Look at an entry."""
    rows = links.read("look at an entry in", _STAT, (name, place.queue, LETTERS[place.state]))
    if not rows:
        raise EntryNotFound(place.queue, name)
    size, written_at = rows[0]
    return Stat(size, aware(written_at))


def stat_data(links: Links, name: str) -> Stat | None:
    """Look at the data of an entry."""
    rows = links.read("look at the data of an entry in", _STAT_DATA, (name,))
    return Stat(rows[0][0], aware(rows[0][1])) if rows else None


def ahead(links: Links) -> float:
    """Return how many seconds the server's clock is ahead of this host's."""
    before = wall_clock()
    [(time,)] = links.read("ask for the time of", _TIME)
    return float(time) - (before + wall_clock()) / 2


def notes(links: Links, name: str) -> dict[str, msgspec.Raw]:
    """Read the notes on an entry."""
    rows = links.read("read the notes on an entry in", _NOTES, (name,))
    if not rows:
        return {}
    kept, begun, progress = rows[0]
    return {**with_attempts(read_notes(kept), begun), **read_notes(progress)}


def carrier(links: Links, name: str) -> bytes | None:
    """Read the carrier of an entry."""
    rows = links.read("read the carrier of an entry in", _CARRIER, (name,))
    return rows[0][0] if rows else None


def reason(links: Links, name: str) -> str | None:
    """Read why an entry was set aside."""
    rows = links.read("read why an entry is in the quarantine of", _REASON, (name,))
    return rows[0][0] if rows else None


def remembered_until(links: Links, name: str, now: float) -> float | None:
    """Look until when a name is remembered."""
    rows = links.read("look for a name in", _REMEMBERED, (name, now))
    return rows[0][0] if rows else None
