"""Make the tables of a spool, bring them up to date, and refuse those that this version cannot use.

The tables are made by the numbered files in `migrations/`; in them `SCHEMA` stands for the spool's schema. Each ends by
writing its number into `format`, and next to it the oldest version that can still use the tables. `create` applies what
is missing, or a database administrator does, with what `script` returns. `load` makes nothing.

Creators wait for each other by an advisory lock of the transaction. What nobody has to make takes no lock.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from trio_multispool.errors import AccessDenied, DirectoryNotEmpty, NotASpool, UnsupportedFormat
from trio_multispool.storage.postgres.sqlstates import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from trio_multispool.storage.postgres.address import Address

VERSION: Final = 2
"""Of the tables that this version makes: the number of the last migration."""

NEEDED: Final = 2
"""The oldest version of the tables that this version can use."""

_OLDEST_SERVER: Final = 14
_PATIENCE: Final = "30s"
"""A migration waits for a lock no longer: whatever comes behind it waits too."""

_MAKE: Final = "make it with Spool.create or `multispool create`"

_LOOK: Final = """
SELECT schema.oid IS NOT NULL,
       (SELECT count(*) = 2 FROM pg_catalog.pg_attribute
         WHERE attrelid = format.oid AND attname IN ('version', 'reads') AND NOT attisdropped),
       EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = schema.oid)
           OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = schema.oid)
  FROM (SELECT) AS one
  LEFT JOIN pg_catalog.pg_namespace AS schema ON schema.nspname = %s
  LEFT JOIN pg_catalog.pg_class AS format
         ON format.relnamespace = schema.oid AND format.relname = 'format' AND format.relkind = 'r'
"""


def with_schema(sql: str, schema: str) -> str:
    """Put the name of a schema into a statement in which `SCHEMA` stands for it, before a dot or as a literal."""
    return sql.replace("SCHEMA.", f'"{schema}".').replace("'SCHEMA'", f"'{schema}'")


def script(spool: str, since: int = 0) -> str:
    """Return what an administrator runs to make the tables, or to bring those of version `since` up to date.

    It is one transaction: it takes place as a whole, or not at all, as where the tables are of another version.
    Raises `ValueError` for a version that there is none of.
    """
    if not 0 <= since <= VERSION:
        raise ValueError(f"there are versions 0 (no tables) to {VERSION}, not {since}")
    if since == VERSION:
        return f"-- The tables of the spool {spool!r} are of version {VERSION}: there is nothing to do.\n"
    begin = f'CREATE SCHEMA IF NOT EXISTS "{spool}";' if not since else with_schema(_ONLY_SINCE.format(since), spool)
    return "\n".join(
        (
            f"-- The tables of the spool {spool!r}, version {VERSION}"
            + (f", from version {since}." if since else ". It may run where there are none yet."),
            "-- Its role, which need not own them, needs no more than:",
            f'--   GRANT USAGE ON SCHEMA "{spool}" TO …;',
            f'--   GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{spool}" TO …;',
            "",
            "BEGIN;",
            _prepared(spool),
            begin,
            "",
            *(_migration(number, spool) for number in range(since + 1, VERSION + 1)),
            "COMMIT;",
            "",
        )
    )


_ONLY_SINCE: Final = """\
DO $$
BEGIN
    IF (SELECT version FROM SCHEMA.format) IS DISTINCT FROM {0} THEN
        RAISE EXCEPTION 'the tables are not of version {0}';
    END IF;
END
$$;"""


def _prepared(schema: str) -> str:
    """Return how a transaction that makes something begins: alone, and with none of the role's own settings."""
    # Each statement must see what the creator before us has made, whatever isolation the role prefers.
    return "\n".join(
        (
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;",
            f"SET LOCAL lock_timeout = '{_PATIENCE}';",
            "SET LOCAL search_path = pg_catalog;",
            f"SELECT pg_advisory_xact_lock(hashtextextended('multispool {schema}', 0));",
        )
    )


def _migration(number: int, schema: str) -> str:
    file = resources.files("trio_multispool.storage.postgres") / "migrations" / f"{number:04}.sql"
    return with_schema(file.read_text("utf-8"), schema)


class _Found(NamedTuple):
    """What there is of a spool in a database."""

    schema: bool
    tables: bool
    """Whether the tables are those of a spool."""
    others: bool
    """Whether the schema holds anything at all."""
    version: int
    reads: int


def _look(connection: psycopg.Connection[Any], schema: str) -> _Found:
    [(there, tables, others)] = connection.execute(_LOOK, (schema,)).fetchall()
    if not tables:
        return _Found(there, tables, others, 0, 0)
    [(version, reads)] = connection.execute(
        with_schema("SELECT version, reads FROM SCHEMA.format", schema).encode()
    ).fetchall()
    return _Found(there, tables, others, version, reads)


def migrate(
    connection: psycopg.Connection[Any],
    address: Address,
    *,
    create: bool,
    before_making: Callable[[], None] = lambda: None,
) -> None:
    """Make sure that there are tables which this version can use; with `create`, make them or bring them up to date.

    The connection is in autocommit mode, and not one of a pooler. `before_making` is called before what may take long.

    Raises `NotASpool`, `DirectoryNotEmpty` for a schema
    that holds something else, `UnsupportedFormat`, `AccessDenied` with the way to do it by hand, and what else a server
    can answer.
    """
    try:
        _check_server(connection, address)
        found = _look(connection, address.schema)
        if create and not (found.tables and found.version >= VERSION):
            before_making()
            _make(connection, address, found)
            found = _look(connection, address.schema)
    except psycopg.Error as error:
        raise translated(error, "open", address.location, opening=True) from error
    _check(found, address)


def _check_server(connection: psycopg.Connection[Any], address: Address) -> None:
    version = connection.info.server_version
    if version < _OLDEST_SERVER * 10_000:
        reason = f"its server is PostgreSQL {version // 10_000}, and {_OLDEST_SERVER} or a later one is needed"
        raise NotASpool(address.location, reason)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise NotASpool(address.location, f"its database has the encoding {encoding}, and UTF8 is needed")


def _make(connection: psycopg.Connection[Any], address: Address, before: _Found) -> None:
    """Do what is missing, unless another creator is faster."""
    try:
        with connection.transaction():
            _ = connection.execute(_prepared(address.schema).encode())
            found = _look(connection, address.schema)
            if found.others and not found.tables:
                raise DirectoryNotEmpty(address.location, "choose another schema, with ?spool=NAME")
            if found.version >= VERSION:
                return
            if not found.schema:
                # Not `IF NOT EXISTS`, which asks for the right to make one even if it is there.
                _ = connection.execute(f'CREATE SCHEMA "{address.schema}"'.encode())
            for number in range(found.version + 1, VERSION + 1):
                _ = connection.execute(_migration(number, address.schema).encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise AccessDenied("make the tables of", address.location, _by_hand(address, before.version)) from error


def _by_hand(address: Address, since: int) -> str:
    after = f" --from {since}" if since else ""
    return f"let its administrator run what this prints: multispool sql '{address.location}'{after}"


def _check(found: _Found, address: Address) -> None:
    """Refuse what is no spool, and tables that this version cannot use."""
    if not found.schema:
        raise NotASpool(address.location, f"there is no schema {address.schema!r} in its database; {_MAKE}")
    if not found.tables:
        told = "holds other things; choose another, with ?spool=NAME" if found.others else f"is empty; {_MAKE}"
        raise NotASpool(address.location, f"the schema {address.schema!r} {told}")
    if found.reads > VERSION:
        raise UnsupportedFormat(address.location, f"version {found.version}, and this one knows {VERSION}")
    if found.version < NEEDED:
        cure = f"bring it up to date: {_MAKE.removeprefix('make it ')}, or {_by_hand(address, found.version)}"
        raise UnsupportedFormat(address.location, f"version {found.version}, and {NEEDED} is needed", cure)


def add_queues(connection: psycopg.Connection[Any], address: Address, names: Collection[str]) -> None:
    """Add the queues that are missing; writes nothing if none is."""
    try:
        if missing := _missing(connection, address, names):
            add = "INSERT INTO SCHEMA.queue SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
            with connection.transaction():
                # Another creator may add them too: no conflict, except in the isolation that a role may prefer.
                _ = connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                _ = connection.execute(with_schema(add, address.schema).encode(), (missing,))
    except psycopg.Error as error:
        raise translated(error, "add a queue to", address.location, opening=True) from error


def check_queues(connection: psycopg.Connection[Any], address: Address, names: Collection[str]) -> None:
    """Raise `NotASpool` if a queue is missing."""
    try:
        missing = _missing(connection, address, names)
    except psycopg.Error as error:
        raise translated(error, "open", address.location, opening=True) from error
    if missing:
        reason = f"queue {missing[0]!r} is missing; load with create_if_missing=True to make it"
        raise NotASpool(address.location, reason)


def _missing(connection: psycopg.Connection[Any], address: Address, names: Collection[str]) -> list[str]:
    statement = with_schema("SELECT name FROM SCHEMA.queue WHERE name = ANY(%s)", address.schema)
    found = {name for (name,) in connection.execute(statement.encode(), (list(names),)).fetchall()}
    return [name for name in names if name not in found]
