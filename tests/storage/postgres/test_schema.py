"""The tables of a spool: who makes them, what is refused, and what is never made."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from trio_multispool.errors import AccessDenied, DirectoryNotEmpty, NotASpool, ReadOnlySpool, UnsupportedFormat
from trio_multispool.storage.postgres import schema
from trio_multispool.storage.postgres.address import Address
from trio_multispool.storage.postgres.schema import add_queues, check_queues, migrate, script

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

pytestmark = pytest.mark.postgresql


def tables(connection: psycopg.Connection[Any], address: Address) -> list[str]:
    """Return everything that is in the spool's schema."""
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s)", (address.schema,)
    )
    return sorted(name for (name,) in rows)


def test_create_makes_the_tables_and_load_finds_them(admin, address):
    """The format says by which version, and a second time changes nothing."""
    migrate(admin, address, create=True)
    made = tables(admin, address)
    assert {"entry", "chunk", "format", "queue", "owner", "link", "server"} <= set(made)
    assert admin.execute(f"SELECT version, reads FROM {address.schema}.format").fetchall() == [(schema.VERSION, 1)]
    migrate(admin, address, create=True)
    migrate(admin, address, create=False)
    assert tables(admin, address) == made


@pytest.mark.parametrize("word", ["order", "user", "table", "schema"])
def test_a_word_of_sql_is_a_name_like_any_other(admin, address, word):
    """It stands in quotes wherever it stands."""
    place = Address.parse(address.location.replace(address.schema, word))
    try:
        migrate(admin, place, create=True)
        add_queues(admin, place, ["send"])
        check_queues(admin, place, ["send"])
    finally:
        admin.execute(f'DROP SCHEMA "{word}" CASCADE')


def test_load_makes_nothing(admin, address):
    """Whoever has only forgotten to make the spool is told how; an empty schema is no spool either."""
    with pytest.raises(
        NotASpool, match=r"there is no schema '.*' in its database; make it with Spool.create or `multispool create`"
    ):
        migrate(admin, address, create=False)
    admin.execute(f"CREATE SCHEMA {address.schema}")
    with pytest.raises(NotASpool, match=r"is empty; make it with Spool.create"):
        migrate(admin, address, create=False)
    assert tables(admin, address) == []


@pytest.mark.parametrize(
    "other",
    [
        "CREATE TABLE {0}.customer (id int)",
        "CREATE TABLE {0}.format (name text)",
        "CREATE VIEW {0}.entries AS SELECT 1 AS one",
        "CREATE FUNCTION {0}.one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
)
def test_a_schema_of_others_is_left_alone(admin, address, other):
    """What is there may be anybody's, whatever it is called."""
    admin.execute(f"CREATE SCHEMA {address.schema}")
    admin.execute(other.format(address.schema))
    found = tables(admin, address)
    with pytest.raises(DirectoryNotEmpty, match="choose another schema, with"):
        migrate(admin, address, create=True)
    with pytest.raises(NotASpool, match="holds other things"):
        migrate(admin, address, create=False)
    assert tables(admin, address) == found


def test_creators_at_the_same_time_all_succeed(admin, address):
    """As when many workers of a new deployment start: each finds the tables, which one of them has made."""
    failures: list[BaseException] = []
    begin = threading.Barrier(6)

    def make() -> None:
        try:
            with psycopg.connect(address.direct, autocommit=True) as connection:
                connection.execute("SET default_transaction_isolation = 'serializable'")
                begin.wait()
                migrate(connection, address, create=True)
                add_queues(connection, address, ["send", "failed"])
        except BaseException as error:  # noqa: BLE001  # told below
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    check_queues(admin, address, ["send", "failed"])


def test_a_creator_waits_for_another_and_then_sees_what_it_has_made(admin, address):
    """It looked before the other had committed; what it does goes by a second look, behind the lock."""
    with psycopg.connect(address.direct) as first:
        first.execute("SELECT pg_advisory_xact_lock(hashtextextended('multispool ' || %s, 0))", (address.schema,))
        second = threading.Thread(target=migrate, args=(admin, address), kwargs={"create": True})
        second.start()
        with psycopg.connect(address.direct, autocommit=True) as onlooker:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while not onlooker.execute(waiting).fetchall()[0][0]:
                assert second.is_alive()
        first.execute(script(address.schema).split("BEGIN;")[1].split("COMMIT;")[0].encode())
        first.commit()
        second.join()
    migrate(admin, address, create=False)


def test_two_may_add_a_queue_at_the_same_time_in_any_isolation(admin, address):
    """The second waits for the first, and is content with what that has made."""
    migrate(admin, address, create=True)
    admin.execute("SET default_transaction_isolation = 'serializable'")
    with psycopg.connect(address.direct) as first:
        first.execute(f"INSERT INTO {address.schema}.queue VALUES ('send')")
        second = threading.Thread(target=add_queues, args=(admin, address, ["send", "failed"]))
        second.start()
        with psycopg.connect(address.direct, autocommit=True) as onlooker:
            while not onlooker.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
                assert second.is_alive()
        first.commit()
        second.join()
    check_queues(admin, address, ["send", "failed"])


def test_a_role_without_the_right_is_told_what_an_administrator_runs(admin, address, role):
    """And with what that has made, and the rights that the script names, it can open and make queues."""
    with pytest.raises(AccessDenied) as caught:
        migrate(role, address, create=True)
    assert f"multispool sql '{address.location}'" in str(caught.value)
    admin.execute(script(address.schema).encode())
    with pytest.raises(AccessDenied, match="grant its role USAGE on the schema"):
        migrate(role, address, create=True)
    for line in script(address.schema).split("\n"):
        if line.startswith("--   GRANT"):
            admin.execute(line.removeprefix("--   ").replace("…", role.info.user).encode())
    migrate(role, address, create=True)
    add_queues(role, address, ["send"])
    migrate(role, address, create=False)
    check_queues(role, address, ["send"])


def test_an_empty_schema_may_be_anothers_who_lets_us_make_tables_in_it(admin, address, role):
    """No right to make schemas is asked for then."""
    admin.execute(f"CREATE SCHEMA {address.schema}")
    admin.execute(f"GRANT USAGE, CREATE ON SCHEMA {address.schema} TO {role.info.user}")
    migrate(role, address, create=True)
    migrate(role, address, create=False)


def test_queues_that_are_missing_are_named(admin, address):
    """As in a directory; `create` adds them, and leaves those that are there."""
    migrate(admin, address, create=True)
    add_queues(admin, address, ["send", "größer"])
    add_queues(admin, address, ["send", "failed"])
    check_queues(admin, address, ["failed", "send", "größer"])
    with pytest.raises(NotASpool, match="queue 'new' is missing; load with create_if_missing=True to make it"):
        check_queues(admin, address, ["send", "new"])


def test_where_nothing_is_missing_nothing_is_written(admin, address):
    """So a spool can be opened, also by `create`, on a standby and by who may only read."""
    migrate(admin, address, create=True)
    add_queues(admin, address, ["send"])
    with psycopg.connect(address.direct, options="-c default_transaction_read_only=on", autocommit=True) as reader:
        migrate(reader, address, create=True)
        add_queues(reader, address, ["send"])
        with pytest.raises(ReadOnlySpool, match="its server takes no writes"):
            add_queues(reader, address, ["new"])


def test_tables_of_a_newer_version_are_used_only_if_they_say_so(admin, address):
    """Between minor versions they only gain: `reads` is the oldest version that may stay."""
    migrate(admin, address, create=True)
    admin.execute(f"UPDATE {address.schema}.format SET version = 9")
    migrate(admin, address, create=True)
    admin.execute(f"UPDATE {address.schema}.format SET reads = 8")
    for create in (False, True):
        with pytest.raises(UnsupportedFormat, match=rf"version 9, and this one knows {schema.VERSION}\); upgrade"):
            migrate(admin, address, create=create)


@pytest.fixture
def second_version(monkeypatch, tmp_path) -> Traversable:
    """Pretend that there is a second version, which needs its tables."""
    for number in (1, 2):
        (tmp_path / "migrations").mkdir(exist_ok=True)
        text = schema._migration(1, "x").replace('"x".', "SCHEMA.").replace("'x'", "'SCHEMA'")
        if number == 2:
            text = "ALTER TABLE SCHEMA.queue ADD note text;\nUPDATE SCHEMA.format SET version = 2, reads = 2;\n"
        (tmp_path / "migrations" / f"000{number}.sql").write_text(text)
    monkeypatch.setattr(schema, "VERSION", 2)
    monkeypatch.setattr(schema, "NEEDED", 2)
    monkeypatch.setattr(schema.resources, "files", lambda _package: tmp_path)
    return tmp_path


def test_older_tables_are_brought_up_to_date_by_create_alone(admin, address, monkeypatch, second_version):
    """Who loads is told of both ways: `create`, and what an administrator runs."""
    with monkeypatch.context() as before:
        before.setattr(schema, "VERSION", 1)
        before.setattr(schema, "NEEDED", 1)
        migrate(admin, address, create=True)
    with pytest.raises(UnsupportedFormat) as caught:
        migrate(admin, address, create=False)
    assert "version 1, and 2 is needed" in str(caught.value)
    assert "Spool.create" in str(caught.value)
    assert f"multispool sql '{address.location}' --from 1" in str(caught.value)
    migrate(admin, address, create=True)
    assert admin.execute(f"SELECT version, reads FROM {address.schema}.format").fetchall() == [(2, 2)]
    migrate(admin, address, create=False)


def test_the_script_is_what_create_does(admin, address, monkeypatch, second_version):
    """All of it, or from a version on; it refuses tables of any other version, and then does nothing."""
    with monkeypatch.context() as before:
        before.setattr(schema, "VERSION", 1)
        admin.execute(script(address.schema).encode())
    admin.execute(script(address.schema, 1).encode())
    assert admin.execute(f"SELECT version FROM {address.schema}.format").fetchall() == [(2,)]
    for since in (0, 1):
        with (
            pytest.raises(psycopg.Error),
            contextlib.closing(psycopg.connect(address.direct, autocommit=True)) as other,
        ):
            other.execute(script(address.schema, since).encode())
    with pytest.raises(psycopg.Error, match="the tables are not of version 1"):
        admin.execute(script(address.schema, 1).encode())
    admin.rollback()
    migrate(admin, address, create=False)


@pytest.mark.parametrize("since", [-1, schema.VERSION + 1])
def test_there_is_no_script_from_a_version_that_never_was(since):
    """A mistyped number makes no script that looks like one."""
    with pytest.raises(ValueError, match="there are versions 0"):
        script("mail", since)


def test_from_the_last_version_there_is_nothing_to_do():
    """It says so, and touches nothing."""
    assert script("mail", schema.VERSION).startswith("-- ")
    assert script("mail", schema.VERSION).count("\n") == 1


def test_every_version_has_its_migration():
    """A file that the code does not count would never be applied."""
    files = schema.resources.files("trio_multispool.storage.postgres") / "migrations"
    numbers = sorted(file.name for file in files.iterdir())
    assert numbers == [f"{number:04}.sql" for number in range(1, schema.VERSION + 1)]
    for number in range(1, schema.VERSION + 1):
        assert "SCHEMA." not in schema._migration(number, "mail")
        assert "SCHEMA.format" in (files / f"{number:04}.sql").read_text().rstrip().rsplit("\n", 1)[1]


def test_a_database_of_another_encoding_is_refused(admin, address):
    """Before anything is made."""
    name = f"{address.schema}_latin"
    admin.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        with (
            psycopg.connect(address.direct, dbname=name, autocommit=True) as connection,
            pytest.raises(NotASpool, match="its database has the encoding LATIN1, and UTF8 is needed"),
        ):
            migrate(connection, address, create=True)
    finally:
        admin.execute(f"DROP DATABASE {name}")


def test_an_old_server_is_refused(admin, address, monkeypatch):
    """The statements of later operations would fail on it one by one."""
    monkeypatch.setattr(schema, "_OLDEST_SERVER", 99)
    with pytest.raises(NotASpool, match="and 99 or a later one is needed"):
        migrate(admin, address, create=True)
    assert tables(admin, address) == []
