"""Which owners are dead, and what becomes of what they had.

An owner is dead when its lock can be had, which every session of it holds, shared. Nothing else counts: no age, no
host, no number of a process. The lock is asked for by the statement that acts on the answer, and held until its commit,
so that no owner comes back to life in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trio_multispool.errors import OutOfSpace, ReadOnlySpool, SpoolError
from trio_multispool.storage.requests import Recovered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_multispool.storage.postgres.link import Links

SERVER: Final = """(
    SELECT to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS.US') || '/' ||
        CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END)"""
"""Which server this is: when it was started, and its timeline, which a standby changes when it takes over."""

_DEAD: Final = f"""
    SELECT id FROM (
        SELECT owner.id FROM SCHEMA.owner JOIN SCHEMA.server ON server.id = {SERVER}
        WHERE owner.id <> {{me}} AND (
            owner.server = server.id
            OR extract(epoch FROM clock_timestamp()) - server.since > {{grace}})
        OFFSET 0
    ) AS judged WHERE pg_try_advisory_xact_lock(id)"""

# Those that have something which is to be put back, or nothing at all. Names that others have reserved are collected
# when somebody wants them, or with everything else.
_DEATHS: Final = f"""
    (SELECT id FROM ({_DEAD}) AS dead
        WHERE EXISTS (SELECT 1 FROM SCHEMA.entry WHERE entry.owner = dead.id AND state = 'c')
            OR NOT EXISTS (SELECT 1 FROM SCHEMA.entry WHERE entry.owner = dead.id)
        LIMIT 1)
    UNION ALL (SELECT 0 FROM SCHEMA.entry WHERE owner = 0 AND state = 'c' LIMIT 1)"""

_BURY: Final = f"""
    WITH dead AS MATERIALIZED ({_DEAD})
    DELETE FROM SCHEMA.owner USING dead
    WHERE owner.id = dead.id AND NOT EXISTS (SELECT 1 FROM SCHEMA.entry WHERE entry.owner = owner.id)"""

_OF_THE_DEAD: Final = "owner IS NOT NULL AND (owner = 0 OR owner IN (SELECT id FROM dead))"

_PUT_BACK: Final = """
    UPDATE SCHEMA.entry SET state = 'a', owner = NULL, token = NULL, due_at = NULL, progress = NULL, moved_at = {now}"""

_RECOVER: Final = f"""
    WITH dead AS MATERIALIZED ({_DEAD}),
    back AS (
        SELECT name FROM SCHEMA.entry WHERE state = 'c' AND {_OF_THE_DEAD}
            AND ({{queue}} IS NULL OR queue = {{queue}})
        ORDER BY name FOR UPDATE SKIP LOCKED
    )
    {_PUT_BACK} WHERE state = 'c' AND name IN (SELECT name FROM back) RETURNING name, queue"""

_FORESEE: Final = f"""
    WITH dead AS MATERIALIZED ({_DEAD})
    SELECT name, CASE WHEN state = 'c' THEN queue END FROM SCHEMA.entry WHERE {_OF_THE_DEAD}
    UNION ALL SELECT name, NULL FROM SCHEMA.entry WHERE state = 'k' AND due_at <= {{now}}"""

_SWEEP: Final = f"""
    WITH dead AS MATERIALIZED ({_DEAD}),
    buried AS (
        DELETE FROM SCHEMA.owner USING dead WHERE owner.id = dead.id
            AND NOT EXISTS (SELECT 1 FROM SCHEMA.entry WHERE entry.owner = owner.id)
    ),
    gone AS (
        SELECT name FROM SCHEMA.entry
        WHERE (state = 'r' AND {_OF_THE_DEAD}) OR (state = 'k' AND due_at <= {{now}})
        ORDER BY name FOR UPDATE SKIP LOCKED
    )
    DELETE FROM SCHEMA.entry WHERE state IN ('r', 'k') AND name IN (SELECT name FROM gone) RETURNING name"""

UNLINK: Final = """
    DELETE FROM SCHEMA.link WHERE at < extract(epoch FROM clock_timestamp()) - 3600
        AND NOT EXISTS (SELECT 1 FROM SCHEMA.owner WHERE owner.id = link.owner)"""
"""Forgets connections of owners that were buried long ago: one that was not dead may ask what became of a change."""

_PUT_BACK_ONE: Final = f"""
    WITH dead AS MATERIALIZED ({_DEAD})
    {_PUT_BACK} WHERE name = {{name}} AND state = 'c' AND {_OF_THE_DEAD} RETURNING name, queue"""

_COLLECT_ONE: Final = f"""
    WITH dead AS MATERIALIZED ({_DEAD})
    DELETE FROM SCHEMA.entry WHERE name IN (
        SELECT name FROM SCHEMA.entry WHERE name = {{name}}
            AND ((state = 'r' AND {_OF_THE_DEAD}) OR (state = 'k' AND due_at <= {{now}}))
        FOR UPDATE SKIP LOCKED
    ) RETURNING name, NULL::text"""


_IS_OF_THE_DEAD: Final = f"""
    WITH dead AS MATERIALIZED ({_DEAD}) SELECT 1 FROM SCHEMA.entry WHERE name = {{name}} AND {_OF_THE_DEAD}"""


def _for_the_keeper(statement: str) -> str:
    return statement.format(me="$1::bigint", grace="$2::double precision", queue="$3::text", now="$4::double precision")


def _for_psycopg(statement: str) -> str:
    return statement.format(
        me="%(me)s",
        grace="%(grace)s",
        queue="%(queue)s::text",
        now="%(now)s::double precision",
        name="%(name)s",
    )


DEATHS: Final = _for_the_keeper(_DEATHS)
"""Tells whether there is anything to put back; asked with this owner, and the grace."""

BURY: Final = _for_the_keeper(_BURY)
"""Forgets dead owners that have nothing; asked with this owner, and the grace."""

DEAD: Final = _for_psycopg(_DEAD)
"""The owners that are dead; asked with this owner, in a common table expression that is materialized."""

OF_THE_DEAD: Final = _OF_THE_DEAD
"""What is theirs, or was let go of: a condition on an entry, beside that expression, which is called `dead`."""

RECOVER: Final = _for_the_keeper(_RECOVER)
"""Puts it back; asked with this owner, the grace, a queue or nothing, and the time."""


def recover(links: Links, now: float, queue: str | None, *, insist: bool) -> list[Recovered]:
    """Put back what dead owners have checked out. Without `insist`, nothing is said of a store that takes no writes."""
    values = {**_values(links, now), "queue": queue}
    try:
        rows = links.update("recover what dead owners have in", _for_psycopg(_RECOVER), values)
    except (OutOfSpace, ReadOnlySpool):
        if insist:
            raise
        return []
    return [Recovered(name, place) for name, place in rows]


def _values(links: Links, now: float) -> dict[str, Any]:
    return {"me": links.owner, "grace": links.patience.grace, "now": now}


def foresee(links: Links, now: float) -> list[Recovered]:
    """Return what a recovery of everything would do."""
    rows = links.read("look for dead owners in", _for_psycopg(_FORESEE), _values(links, now))
    return [Recovered(name, place) for name, place in rows]


def sweep(links: Links, now: float) -> Iterator[Recovered | SpoolError]:
    """Collect the reserved names of dead owners, names that are remembered no longer, and dead owners."""
    values = _values(links, now)
    for (name,) in links.update("collect what belongs to no entry in", _for_psycopg(_SWEEP), values):
        yield Recovered(name, None)
    _ = links.update("forget dead owners in", UNLINK)


def is_of_the_dead(links: Links, name: str) -> bool:
    """Tell whether a dead owner has an entry, or has reserved its name."""
    values = {"me": links.owner, "grace": links.patience.grace, "name": name}
    return bool(links.read("look for a dead owner in", _for_psycopg(_IS_OF_THE_DEAD), values))


def recover_name(links: Links, now: float, name: str) -> Recovered | None:
    """Do so for one name."""
    values = {**_values(links, now), "name": name}
    for statement in (_PUT_BACK_ONE, _COLLECT_ONE):
        for found, queue in links.update("recover", _for_psycopg(statement), values):
            return Recovered(found, queue)
    return None
