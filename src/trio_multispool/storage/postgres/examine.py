"""What may be wrong with a store in PostgreSQL: few things, because one row is an entry, and one statement a step.

A row is read in one look, so what is told of a name was so at one moment. That its owner is dead is asked for by that
look too. Nothing is locked for longer, and nothing is written: a standby, or a role that may only read, can do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trio_multispool.model.lifecycle import Place
from trio_multispool.storage.findings import Findings, Holder, of_entry, of_reservation
from trio_multispool.storage.postgres.recovery import DEAD
from trio_multispool.storage.postgres.take import STATES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_multispool.storage.findings import Judge, Wanted
    from trio_multispool.storage.postgres.link import Links

_PAGE: Final = 1000

_WHOLE: Final = "chunks = (SELECT count(*) FROM SCHEMA.chunk WHERE chunk.name = entry.name)"

_ROW: Final = f"""
    SELECT name, queue, state::text, written_at, moved_at, due_at, chunks = 0 OR {_WHOLE},
        owner IS NOT NULL AND owner <> 0 AND owner NOT IN (SELECT id FROM dead), metadata
    FROM SCHEMA.entry AS entry"""

_SUSPECTS: Final = f"""
    SELECT name FROM SCHEMA.entry WHERE owner IS NOT NULL AND state IN ('c', 'r')
    UNION SELECT name FROM SCHEMA.entry WHERE chunks > 0 AND state IN ('a', 'w') AND NOT {_WHOLE}
    UNION SELECT name FROM unnest(%(queues)s::text[], %(before)s::double precision[]) AS old (queue, before)
        JOIN SCHEMA.entry ON entry.queue = old.queue
        WHERE (state = 'a' AND written_at < before) OR (state = 'w' AND due_at < before)
    UNION SELECT name FROM SCHEMA.entry WHERE name = ANY(%(names)s::text[])"""

# One queue at a time: only so are its pages read off its index.
_JUDGED: Final = f"""
    SELECT name, metadata FROM SCHEMA.entry
    WHERE state = 'a' AND queue = %(queue)s AND name > %(after)s AND greatest(written_at, moved_at) >= %(since)s
    ORDER BY name LIMIT {_PAGE}"""

_CLOSELY: Final = f"WITH dead AS MATERIALIZED ({DEAD}) {_ROW} WHERE name = ANY(%(names)s::text[])"


def examine(links: Links, wanted: Wanted, judge: Judge) -> Iterator[Findings | None]:
    """Yield the findings on each name with which something may be wrong, and `None` after each page of metadata."""
    queues, before = list(wanted.modified_before), list(wanted.modified_before.values())
    values: dict[str, Any] = {"queues": queues, "before": before, "names": list(wanted.names)}
    names = {name for (name,) in links.read("examine", _SUSPECTS, values)}
    for queue in wanted.judged:
        rows, after = [("", b"")] * _PAGE, ""
        while len(rows) == _PAGE:
            values = {"queue": queue, "since": wanted.judged_since, "after": after}
            rows = links.read("examine", _JUDGED, values)
            names |= {name for name, metadata in rows if judge(queue, metadata) is not None}
            yield None
            after = rows[-1][0] if rows else after
    found = sorted(names)
    for page in (found[at : at + _PAGE] for at in range(0, len(found), _PAGE)):
        yield from _closely(links, page, judge)


def look_closely(links: Links, name: str, judge: Judge) -> Findings:
    """Return the findings on one name."""
    return next(iter(_closely(links, [name], judge)), Findings(name, (), Holder.NOBODY))


def _closely(links: Links, names: list[str], judge: Judge) -> list[Findings]:
    grace = links.patience.grace
    return [
        _findings(row, judge)
        for row in links.read("examine", _CLOSELY, {"names": names, "me": links.owner, "grace": grace})
    ]


def _findings(row: tuple[Any, ...], judge: Judge) -> Findings:
    name, queue, letter, written_at, moved_at, due_at, has_data, is_held, metadata = row
    holder = Holder.SOMEBODY if is_held else Holder.NOBODY
    if letter == "r":
        return of_reservation(name, moved_at, holder)
    if letter not in STATES:
        return Findings(name, (), holder)
    return of_entry(
        name,
        Place(queue, STATES[letter]),
        written_at=written_at,
        moved_at=moved_at,
        due_at=due_at,
        has_data=has_data,
        fault=judge(queue, metadata) if letter == "a" else None,
        holder=holder,
    )
