"""What the person who looks after the server should know: what will make a spool slow, or lose what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trio_multispool.storage.requests import Advice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_multispool.storage.postgres.link import Links

OLD: Final = 60
"""A snapshot that has been held for longer, in seconds, keeps the server from clearing away what was worked off."""

_MANY_DEAD: Final = 100_000
_NEARLY: Final = 0.8

INDEXES: Final = frozenset({"available", "waiting", "owned", "held", "aside", "remembered", "cancelled"})
"""Those of the entries, by which they are found."""

_SETTINGS: Final = """
    SELECT current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery(),
        current_setting('autovacuum'), current_setting('max_connections')::integer,
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"""

_SNAPSHOTS: Final = """
    SELECT 'session ' || pid || COALESCE(' of ' || NULLIF(application_name, ''), '')
            || COALESCE(', user ' || usename, ''),
        extract(epoch FROM clock_timestamp() - xact_start)::integer,
        'end it: SELECT pg_terminate_backend(' || pid || ')'
    FROM pg_stat_activity
    WHERE backend_xmin IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()
        AND xact_start < clock_timestamp() - make_interval(secs => %(old)s)
    UNION ALL
    SELECT 'prepared transaction ' || gid, extract(epoch FROM clock_timestamp() - prepared)::integer,
        'commit it or roll it back'
    FROM pg_prepared_xacts
    WHERE database = current_database() AND prepared < clock_timestamp() - make_interval(secs => %(old)s)
    UNION ALL
    SELECT 'replication slot ' || slot_name, NULL, 'let its standby catch up, or drop it'
    FROM pg_replication_slots WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL)"""

_TABLE: Final = """
    SELECT n_live_tup, n_dead_tup, last_autovacuum IS NULL AND last_vacuum IS NULL
    FROM pg_stat_user_tables WHERE schemaname = %s AND relname = 'entry'"""

_INDEXES: Final = """
    SELECT class.relname FROM pg_index
    JOIN pg_class AS class ON class.oid = indexrelid JOIN pg_namespace AS space ON space.oid = class.relnamespace
    WHERE space.nspname = %s AND indisvalid"""


def unsynced(fsync: str, full_page_writes: str) -> str | None:
    """Return which setting keeps a server from doing what it says; `None`: none does."""
    if fsync == "off":
        return "fsync=off"
    return "full_page_writes=off" if full_page_writes == "off" else None


def advice(links: Links) -> Iterator[Advice]:
    """Yield what there is to say."""
    doing = "ask for the settings of the server of"
    [(fsync, pages, standby, autovacuum, most, connections)] = links.read(doing, _SETTINGS)
    setting = unsynced(fsync, pages)
    if setting is not None:
        yield Advice(
            f"the server runs with {setting}: a power failure may damage the spool as a whole",
            "turn it on in postgresql.conf, and reload",
        )
    if standby:
        yield Advice(
            "the server is a standby, and takes no writes",
            "give the first server, or all of them: several hosts in the URL find the one that takes writes",
        )
    if autovacuum == "off":
        yield Advice("autovacuum is off: each entry that is worked off stays in the tables", "turn it on")
    if connections > most * _NEARLY:
        yield Advice(
            f"{connections} of {most} connections are in use; each open spool has up to five",
            "raise max_connections, or send statements through a pooler (?pool=)",
        )
    yield from _of_the_tables(links)


def _of_the_tables(links: Links) -> Iterator[Advice]:
    schema = links.address.schema
    for who, seconds, cure in links.read("look for old snapshots in", _SNAPSHOTS, {"old": OLD}):
        since = "" if seconds is None else f" for {seconds} s"
        yield Advice(f"{who} holds a snapshot{since}: nothing that was worked off meanwhile can be cleared away", cure)
    rows: list[tuple[Any, ...]] = links.read("ask for the statistics of", _TABLE, (schema,))
    for live, dead, never in rows:
        if dead > _MANY_DEAD and dead > live:
            told = ", and was never vacuumed" if never else ""
            yield Advice(
                f"the table of entries has {dead} dead rows and {live} live ones{told}",
                "see what keeps autovacuum from it: old snapshots, or too few workers",
            )
    found = {name for (name,) in links.read("look for the indexes of", _INDEXES, (schema,))}
    for missing in sorted(INDEXES - found):
        yield Advice(
            f"the index {missing!r} is missing, or not valid: operations will read whole tables",
            f"drop it if it is there, and make it as `multispool sql '{links.address.location}'` shows",
        )
