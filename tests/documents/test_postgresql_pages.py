"""docs/transactions.md and docs/postgresql-schema.md: what they show runs, and what they list is what there is."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from helpers.pages import BLOCK, PROJECT
from helpers.postgresql import server
from helpers.processes import run_python
from trio_multispool.storage.postgres.address import Address
from trio_multispool.storage.postgres.schema import add_queues, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.postgresql

TRANSACTIONS = PROJECT / "docs" / "transactions.md"
SCHEMA = PROJECT / "docs" / "postgresql-schema.md"


@pytest.fixture
def mail() -> Iterator[Address]:
    """Return where a spool is, with a queue `send`."""
    name = f"of_a_page_{os.getpid()}"
    server().drop(name)
    address = Address.parse(server().url(name))
    with psycopg.connect(address.direct, autocommit=True) as connection:
        migrate(connection, address, create=True)
        add_queues(connection, address, ["send"])
    yield address
    server().drop(name)


@pytest.fixture
def connection(mail: Address) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection in whose transaction there are the roles that the pages name; it is rolled back."""
    with psycopg.connect(mail.direct) as connection:
        for role in ("shop", "support"):
            connection.execute(f"CREATE ROLE {mail.schema}_{role}".encode())
        yield connection
        connection.rollback()


def statements(page: Path, mail: Address) -> list[str]:
    """Return the SQL that a page shows, for this spool and its roles."""
    blocks = BLOCK.finditer(page.read_text(encoding="utf-8"))
    found = [match["text"] for match in blocks if match["language"] in ("sql", "postgresql")]
    assert found
    for word, ours in {r"mail(?=\.|\s+TO\b)": mail.schema, "TO (?=shop|support)": f"TO {mail.schema}_"}.items():
        found = [re.sub(rf"\b{word}", ours, each) for each in found]
    return [each.replace("CREATE TABLE", "CREATE TEMPORARY TABLE") for each in found]


@pytest.mark.parametrize("page", [TRANSACTIONS, SCHEMA], ids=lambda page: page.stem)
def test_the_sql_of_a_page_runs(page, mail, connection):
    """As it is shown, but for the names of the schema and the roles."""
    for each in statements(page, mail):
        connection.execute(each.encode())


def test_the_page_enqueues_what_it_says(mail, connection):
    """By hand, with all arguments, and by a trigger."""
    for each in statements(TRANSACTIONS, mail):
        connection.execute(each.encode())
    rows = connection.execute(
        f"SELECT name, state, metadata FROM {mail.schema}.entries ORDER BY name".encode()
    ).fetchall()
    assert [row[1:] for row in rows] == [
        ("available", '{"to": "anne@example.org"}'),
        ("waiting", '{"to": "anne@example.org"}'),
        ("available", '{"to": "bert@example.org"}'),
    ]
    assert [row[0] for row in rows[1:]] == ["order-17", "order-18"]


@pytest.mark.parametrize("rights", [0, 1])
def test_the_rights_that_the_page_names_are_enough(mail, connection, rights):
    """Either way lets the role enqueue, and learn why a name is taken; the second does not let it read entries."""
    granted = [each for each in statements(TRANSACTIONS, mail) if "GRANT USAGE" in each]
    connection.execute(granted[rights].encode())
    connection.execute(f"SET ROLE {mail.schema}_shop".encode())
    for _ in range(2):
        ask = f"SELECT {mail.schema}.enqueue('send', '', name => 'x', if_absent => true), {mail.schema}.state_of('x')"
        answer = connection.execute(ask.encode()).fetchall()
    assert answer == [(None, "a")]
    if rights:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT * FROM {mail.schema}.entry".encode())


def test_the_arguments_of_the_function_are_those_of_the_page(mail, connection):
    """In their order; and the codes of errors are named as PostgreSQL does."""
    text = TRANSACTIONS.read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| `[\w`, ]+ or `bytea` \||^\| `(\w+)` \| `\w+` \|", text, re.MULTILINE)
    names = "SELECT DISTINCT proargnames FROM pg_proc WHERE proname = 'enqueue' AND pronamespace = to_regnamespace(%s)"
    [(found,)] = connection.execute(names, (mail.schema,)).fetchall()
    assert [first or second for first, second in listed] == found
    codes = re.findall(r"^\| `(\w{5})` (\w+) \|", text, re.MULTILINE)
    assert len(codes) == 6
    for code, name in codes:
        assert psycopg.errors.lookup(code).__name__.lower() == name.replace("_", "")


def test_every_table_and_column_stands_on_the_page(mail, connection):
    """With its type, in the order of the table; and the view likewise."""
    text, table = SCHEMA.read_text(encoding="utf-8"), ""
    listed = []
    for name, column, kind in re.findall(r'^\| (?:`(\w+)`)? ?\| `(\w+)` \| `([\w" \[\]]+)` \|', text, re.MULTILINE):
        table = name or table
        listed.append((table, column, kind))
    listed += [
        ("entries", column, kind)
        for column, kind in re.findall(r"^\| `(\w+)` \| `(\w+)` \| [^|]+ \|$", text, re.MULTILINE)
    ]
    found = connection.execute(
        "SELECT relname, attname, replace(format_type(atttypid, atttypmod), 'timestamp with time zone', 'timestamptz') "
        "FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'v') AND attnum > 0 "
        "ORDER BY relkind, relname, attnum",
        (mail.schema,),
    ).fetchall()
    assert sorted(listed, key=lambda row: row[0]) == sorted(found, key=lambda row: row[0])


@pytest.mark.program
def test_in_django_the_connection_is_where_the_page_says(mail):
    """What `atomic` rolls back is not in the spool."""
    done = run_python(
        """
        import enum, sys
        import django.conf
        from psycopg.conninfo import conninfo_to_dict
        parts = conninfo_to_dict(sys.argv[1])
        django.conf.settings.configure(DATABASES={"default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": parts["dbname"], "USER": parts.get("user", ""),
            "PASSWORD": parts.get("password", ""), "HOST": parts.get("host", ""), "PORT": parts.get("port", "")}})
        from django.db import connection, transaction
        from trio_multispool import Spoolable
        from trio_multispool.integrations.postgresql import enqueue_in
        Mail = enum.Enum("Mail", {"SEND": "send"})
        for number in range(2):
            with transaction.atomic():
                connection.cursor().execute("SELECT 1")
                name = enqueue_in(connection.connection, sys.argv[2], Spoolable(Mail, int), Mail.SEND, number).unwrap()
                transaction.set_rollback(number == 0)
        print(name)
        connection.close()
        """,
        mail.direct,
        mail.location,
        anew=True,
    )
    assert server().execute(f"SELECT name FROM {mail.schema}.entry") == [(done.stdout.strip(),)]
