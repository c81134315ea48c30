"""How the queues of a spool on a server stand, for metrics. Nothing is written, or locked for long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trio_multispool.storage.postgres import looks
from trio_multispool.storage.postgres.recovery import DEAD, OF_THE_DEAD
from trio_multispool.storage.requests import LOOKED_AT, Standing

if TYPE_CHECKING:
    from trio_multispool.storage.postgres.link import Links

# By queue, so that each is read off its index, from the beginning. Of what waits, that begins with what is due first.
_OLDEST: Final = f"""
    SELECT queue.name,
        (SELECT min(first.arrived_at) FROM (
            SELECT arrived_at FROM SCHEMA.entry
            WHERE entry.queue = queue.name AND state = 'a' ORDER BY entry.name LIMIT {LOOKED_AT}) AS first),
        (SELECT greatest(due_at, arrived_at) FROM SCHEMA.entry
            WHERE entry.queue = queue.name AND state = 'w' ORDER BY due_at, entry.name LIMIT 1)
    FROM unnest(%(queues)s::text[]) AS queue (name)"""

_ABANDONED: Final = f"""
    WITH dead AS MATERIALIZED ({DEAD})
    SELECT queue, count(*) FROM SCHEMA.entry WHERE state = 'c' AND {OF_THE_DEAD} GROUP BY queue"""


def standings(links: Links, now: float) -> list[Standing]:
    """Tell of each queue how it stands."""
    found: dict[str, Standing] = {}
    for place, number in looks.depths(links).items():
        found.setdefault(place.queue, Standing(place.queue, abandoned=0)).entries[place.state] = number
    for queue, *moments in links.read("look for the oldest in", _OLDEST, {"queues": list(found)}):
        for moment in moments:
            found[queue].see(moment, now)
    owners: dict[str, Any] = {"me": links.owner, "grace": links.patience.grace}
    for queue, number in links.read("look for dead owners in", _ABANDONED, owners):
        if queue in found:
            found[queue].abandoned = number
    return [found[queue] for queue in sorted(found)]
