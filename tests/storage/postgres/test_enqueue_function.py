"""The function `enqueue` of the database: what any program, trigger or job can call in its own transaction."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import psycopg
import pytest
from psycopg import errors as refused
from psycopg.types.json import Json, Jsonb

from trio_multispool.model.names import invalid_name, time_ordered_name

pytestmark = pytest.mark.postgresql

CHUNK = 256 * 1024
IN_ROW = 64 * 1024


@pytest.fixture
def connection(spool):
    """Return a connection of a program, in transactions of its own."""
    with psycopg.connect(spool.direct) as connection:
        connection.execute(f"SET search_path = {spool.schema}")
        connection.commit()
        yield connection
        connection.rollback()


def enqueued(connection: psycopg.Connection[Any], *values: object, **named: object) -> Any:
    """Call the function; return the name."""
    arguments = ["%s" for _ in values] + [f"{key} => %({key})s" for key in named]
    given: Any = named or values
    if named:
        arguments[: len(values)] = [f"%(value{number})s" for number in range(len(values))]
        given = {**named, **{f"value{number}": value for number, value in enumerate(values)}}
    [(name,)] = connection.execute(f"SELECT enqueue({', '.join(arguments)})".encode(), given).fetchall()
    return name


def row(connection: psycopg.Connection[Any], name: str) -> dict[str, Any]:
    """Return an entry's row as the store finds it."""
    cursor = connection.execute("SELECT *, state::text AS state FROM entry WHERE name = %s", (name,))
    [found] = cursor.fetchall()
    assert cursor.description is not None
    return {column.name: value for column, value in zip(cursor.description, found, strict=True)}


def test_an_entry_has_what_the_library_gives_it(connection):
    """It is available, of now, with its metadata and data as they were given, and nobody's."""
    name = enqueued(connection, "send", b"\x00\xff", b"\x01")
    found = row(connection, name)
    [(now,)] = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchall()
    assert 0 <= now - found["written_at"] < 60
    assert found["written_at"] == found["moved_at"] == found["data_at"]
    assert (found["queue"], found["state"], found["metadata"], found["data"]) == ("send", "a", b"\x00\xff", b"\x01")
    assert (found["size"], found["chunks"]) == (1, 0)
    kept = {
        "name",
        "queue",
        "state",
        "metadata",
        "data",
        "size",
        "chunks",
        "written_at",
        "moved_at",
        "arrived_at",
        "data_at",
    }
    assert {key for key, value in found.items() if value is not None} == kept


def test_a_name_is_made_as_the_library_makes_them(connection):
    """It reads and sorts by time, with eight random digits: `20261123T070439.923587437Z-8f31c2aa`."""
    name = enqueued(connection, "send", "{}")
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{9}Z-[0-9a-f]{8}", name)
    [(now,)] = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 * 1000").fetchall()
    assert time_ordered_name(now - 60_000_000_000, "0") < name < time_ordered_name(now, "g")


def test_names_of_a_session_are_in_order_however_fast_they_are_made(connection):
    """Several of one microsecond, of several statements and transactions too: each is later than the one before."""
    several = "SELECT enqueue('send', '{}') FROM generate_series(1, 500)"
    names = [name for (name,) in connection.execute(several)]
    connection.commit()
    names += [name for (name,) in connection.execute(several)]
    times = [name[:26] for name in names]
    assert times == sorted(set(times))
    assert len({name[27:] for name in names}) > 900


def test_names_are_in_order_though_the_clock_steps_back_and_a_setting_may_be_anything(connection):
    """The session's last name counts, as long as it is one."""
    [(later,)] = connection.execute(
        "SELECT (extract(epoch FROM clock_timestamp()) + 500)::int8 * 1000000000"
    ).fetchall()
    for told, expected in ((str(later), time_ordered_name(later + 1, "")), ("x", "2"), ("9" * 19, "2"), ("", "2")):
        connection.execute("SELECT set_config('multispool.last_name', %s, false)", (told,))
        name = enqueued(connection, "send", "{}")
        assert name.startswith(expected)


@pytest.mark.parametrize(
    ("metadata", "stored"),
    [
        (b"\xff\x00", b"\xff\x00"),
        ('{"to": "Jürgen"}', '{"to": "Jürgen"}'.encode()),
        (Json({"b": [1.50, None], "a": "ü"}), b'{"b": [1.5, null], "a": "\\u00fc"}'),
        (Jsonb({"b": [1.50, None], "a": "ü"}), '{"a": "ü", "b": [1.5, null]}'.encode()),
    ],
)
def test_metadata_are_bytes_or_text_or_json(connection, metadata, stored):
    """Text becomes UTF-8, and so does JSON, as the server writes it."""
    assert row(connection, enqueued(connection, "send", metadata))["metadata"] == stored


def test_a_literal_needs_no_cast(connection):
    """As a person writes it in psql, and a driver that names no type."""
    [(name,)] = connection.execute("""SELECT enqueue('größer', '{"to": "anne"}')""").fetchall()
    assert row(connection, name)["metadata"] == b'{"to": "anne"}'


@pytest.mark.parametrize("size", [0, 1, IN_ROW, IN_ROW + 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1])
def test_large_data_lie_in_chunks(connection, size):
    """Up to 64 KiB in the row, and above in chunks of 256 KiB, in order, with nothing lost and nothing added."""
    data = bytes(number % 251 for number in range(size))
    name = enqueued(connection, "send", "{}", data)
    found = row(connection, name)
    pieces = [
        each for (each,) in connection.execute("SELECT bytes FROM chunk WHERE name = %s ORDER BY number", (name,))
    ]
    numbers = connection.execute("SELECT number FROM chunk WHERE name = %s ORDER BY number", (name,)).fetchall()
    assert found["size"] == size
    assert found["chunks"] == len(pieces) == (0 if size <= IN_ROW else -(-size // CHUNK))
    assert numbers == [(number,) for number in range(len(pieces))]
    assert all(len(piece) == CHUNK for piece in pieces[:-1])
    assert (found["data"] if size <= IN_ROW else b"".join(pieces)) == data
    assert (found["data"] is None) == (size > IN_ROW)


def test_every_name_is_allowed_that_the_library_allows_and_no_other(connection):
    """One rule in two languages: tried with each character of many scripts, and at the limits."""
    numbers = [*range(1, 0x3000), *range(0x3000, 0x110000, 97)]
    texts = [f"a{chr(number)}" for number in numbers if not 0xD800 <= number < 0xE000]
    texts += [".", ".a", "", "a" * 200, "a" * 201, "ü" * 100, "ü" * 100 + "a", "a/", "/", "a.b"]
    found = connection.execute(
        "SELECT text, fault_of(text) FROM unnest(%s::text[]) AS text WHERE fault_of(text) IS NOT NULL", (texts,)
    ).fetchall()
    faults = [invalid_name(text) for text in texts]
    assert dict(found) == {fault.name: fault.reason for fault in faults if fault is not None}


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ("'other', '{}'", refused.ForeignKeyViolation, r"there is no queue 'other' in the spool of_the_store_\d+"),
        ("NULL, '{}'", refused.ForeignKeyViolation, "there is no queue NULL"),
        ("'send', '{}', name => 'a/b'", refused.InvalidParameterValue, "'a/b' cannot be a name: it contains a slash"),
        ("'send', NULL::text", refused.NullValueNotAllowed, "the metadata of an entry cannot be NULL"),
        ("'send', '{}', not_before => 'infinity'", refused.DatetimeFieldOverflow, "at the latest in the year 2445"),
        ("'send', '{}', not_before => '2446-01-01 0:00Z'", refused.DatetimeFieldOverflow, "in the year 2445"),
        ("'send', '{}', remember => '-1 s'", refused.InvalidParameterValue, "for less than no time"),
        ("'send', '{}', carrier => '[]'", refused.InvalidParameterValue, "a carrier is an object whose values are"),
        ("'send', '{}', carrier => '{\"a\": 1}'", refused.InvalidParameterValue, "a carrier is an object whose values"),
    ],
)
def test_what_cannot_be_enqueued_is_refused_in_words(connection, arguments, error, says):
    """With a code that a program in any language can tell apart; nothing is made."""
    with pytest.raises(error, match=says):
        connection.execute(f"SELECT enqueue({arguments})")
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM entry").fetchall() == [(0,)]


def test_an_entry_may_wait_and_its_name_be_remembered(connection):
    """A time that has passed means no delay."""
    [(at,)] = connection.execute("SELECT date_trunc('second', clock_timestamp()) + interval '1 hour'").fetchall()
    found = row(connection, enqueued(connection, "send", "{}", not_before=at, remember="1 day"))
    assert (found["state"], found["due_at"], found["remember"]) == ("w", at.timestamp(), 86400.0)
    [(past,)] = connection.execute("SELECT clock_timestamp() - interval '1 hour'").fetchall()
    found = row(connection, enqueued(connection, "send", "{}", not_before=past))
    assert (found["state"], found["due_at"]) == ("a", None)


def test_a_carrier_is_kept_with_the_entry(connection):
    """As JSON, which is what the library reads."""
    name = enqueued(connection, "send", "{}", carrier=Jsonb({"traceparent": "00-ü"}))
    assert json.loads(row(connection, name)["carrier"]) == {"traceparent": "00-ü"}
    assert row(connection, enqueued(connection, "send", "{}", carrier=None))["carrier"] is None


def test_a_name_that_is_taken_is_a_unique_violation(connection):
    """Whoever asks for it gets NULL instead, and the transaction goes on; what is there stays as it is."""
    assert enqueued(connection, "send", "1", name="order-1") == "order-1"
    assert enqueued(connection, "größer", "2", name="order-1", if_absent=True) is None
    assert row(connection, "order-1")["metadata"] == b"1"
    with pytest.raises(
        refused.UniqueViolation, match="an entry named 'order-1' already exists in this spool"
    ) as caught:
        enqueued(connection, "send", "3", name="order-1")
    assert caught.value.diag.constraint_name == "entry_pkey"


OLD = "INSERT INTO entry (name, queue, state, owner, token, due_at, written_at, moved_at, data_at, metadata, notes) "


def test_a_remembered_name_is_free_when_it_is_over(connection):
    """Until then it is taken; afterwards nothing is left of the one before."""
    connection.execute(f"{OLD} VALUES ('x', '', 'k', NULL, NULL, 4000000000, 0, 0, 0, '', 'n')")
    connection.commit()
    assert enqueued(connection, "send", "1", name="x", if_absent=True) is None
    with pytest.raises(refused.UniqueViolation, match="was removed from this spool, and its name is remembered"):
        enqueued(connection, "send", "1", name="x")
    connection.rollback()
    connection.execute("UPDATE entry SET due_at = 1")
    connection.execute("INSERT INTO chunk VALUES ('x', 7, 'old')")
    assert enqueued(connection, "send", "1", b"x" * CHUNK, name="x") == "x"
    found = row(connection, "x")
    assert (found["state"], found["due_at"], found["notes"], found["chunks"]) == ("a", None, None, 1)
    assert connection.execute("SELECT number FROM chunk WHERE name = 'x'").fetchall() == [(0,)]


def test_a_reserved_name_is_busy_unless_it_was_let_go(connection):
    """Another process may be about to use it."""
    connection.execute(f"{OLD} VALUES ('x', '', 'r', 5, 1, NULL, 0, 0, 0, '', NULL)")
    connection.commit()
    with pytest.raises(refused.ObjectInUse, match="the name 'x' is reserved"):
        enqueued(connection, "send", "1", name="x")
    connection.rollback()
    connection.execute("UPDATE entry SET owner = 0")
    assert enqueued(connection, "send", "1", name="x") == "x"
    assert (row(connection, "x")["owner"], row(connection, "x")["token"]) == (None, None)


def test_what_is_rolled_back_was_never_there(connection, admin, spool):
    """Neither the entry nor its data, in the transaction or to a savepoint; and before the commit nobody sees them."""
    enqueued(connection, "send", "{}", b"x" * CHUNK)
    assert admin.execute(f"SELECT count(*) FROM {spool.schema}.entry").fetchall() == [(0,)]
    connection.rollback()
    connection.execute("SAVEPOINT before")
    enqueued(connection, "send", "{}", b"x" * CHUNK, name="a")
    connection.execute("ROLLBACK TO before")
    assert enqueued(connection, "send", "{}", name="a") == "a"
    connection.commit()
    counts = f"SELECT (SELECT count(*) FROM {spool.schema}.entry), (SELECT count(*) FROM {spool.schema}.chunk)"
    assert admin.execute(counts).fetchall() == [(1, 0)]


def hints(connection: psycopg.Connection[Any]) -> list[str]:
    """Return what has been told up to now."""
    connection.execute("SELECT 1")  # what was committed before is delivered with its answer
    return [each.payload for each in connection.notifies(timeout=0)]


def test_readers_are_told_at_the_commit(connection, admin, spool):
    """Of the queue; not before the commit, nor of what was rolled back, nor if the program does not want it."""
    admin.execute(f'LISTEN "{spool.schema}"')
    enqueued(connection, "größer", "{}")
    assert hints(admin) == []
    connection.commit()
    assert hints(admin) == ["a größer"]
    enqueued(connection, "send", "{}")
    connection.rollback()
    connection.execute("SET LOCAL multispool.notify = off")
    enqueued(connection, "send", "{}")
    connection.commit()
    assert hints(admin) == []
    enqueued(connection, "send", "{}", not_before="2100-01-01 0:00Z")
    connection.commit()
    assert hints(admin) == ["a send"]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_who_wants_a_name_waits_for_the_transaction_that_has_it(connection, spool, end):
    """If that is committed the name is taken, and if it is rolled back the name is free."""
    enqueued(connection, "send", "first", name="x")
    answers: list[Any] = []

    def other() -> None:
        with psycopg.connect(spool.direct) as second:
            second.execute(f"SET search_path = {spool.schema}")
            answers.append(enqueued(second, "send", "second", name="x", if_absent=True))

    thread = threading.Thread(target=other)
    thread.start()
    with psycopg.connect(spool.direct, autocommit=True) as onlooker:
        while not onlooker.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            assert thread.is_alive()
    connection.execute(end.encode())
    thread.join()
    assert answers == [None if end == "COMMIT" else "x"]
    assert row(connection, "x")["metadata"] == (b"first" if end == "COMMIT" else b"second")


def test_a_trigger_can_enqueue(connection):
    """An order and the mail about it are made by one statement, or neither."""
    connection.execute("CREATE TEMPORARY TABLE orders (id int PRIMARY KEY, address text)")
    connection.execute(
        """CREATE FUNCTION pg_temp.mail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM enqueue('send', jsonb_build_object('to', NEW.address), name => 'order-' || NEW.id);
               RETURN NULL;
           END $$"""
    )
    connection.execute("CREATE TRIGGER mail AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pg_temp.mail()")
    connection.execute("INSERT INTO orders VALUES (1, 'anne'), (2, 'bert')")
    rows = connection.execute("SELECT name, metadata FROM entry ORDER BY name").fetchall()
    assert rows == [("order-1", b'{"to": "anne"}'), ("order-2", b'{"to": "bert"}')]


def test_a_role_needs_rights_on_the_tables_or_the_function_is_run_with_its_owners(admin, role, spool):
    """An administrator may let a role enqueue, and do nothing else."""
    admin.execute(f"GRANT USAGE ON SCHEMA {spool.schema} TO {role.info.user}")
    call = f"SELECT {spool.schema}.enqueue('send', '{{}}')".encode()
    with pytest.raises(refused.InsufficientPrivilege):
        role.execute(call)
    kind = "text, bytea, bytea, timestamptz, text, interval, jsonb, boolean"
    admin.execute(f"ALTER FUNCTION {spool.schema}.enqueue({kind}) SECURITY DEFINER")
    # A table or a function of the role's own is not taken for one of the spool's, or of the server's.
    role.execute("CREATE TEMPORARY TABLE entry (name text)")
    role.execute("CREATE FUNCTION pg_temp.left(text, int) RETURNS text LANGUAGE sql AS $$ SELECT 'mine' $$")
    role.execute("SET search_path = pg_temp, pg_catalog")
    [(name,)] = role.execute(call).fetchall()
    assert not name.endswith("mine")
    with pytest.raises(refused.InsufficientPrivilege):
        role.execute(f"SELECT * FROM {spool.schema}.entry")
    assert admin.execute(f"SELECT name FROM {spool.schema}.entry").fetchall() == [(name,)]


def test_the_rights_that_the_script_names_are_enough(admin, role, spool):
    """A producer needs less: to read queues, and to add and change entries and chunks."""
    user = role.info.user
    admin.execute(f"GRANT USAGE ON SCHEMA {spool.schema} TO {user}")
    admin.execute(f"GRANT SELECT ON {spool.schema}.queue TO {user}")
    admin.execute(f"GRANT SELECT, INSERT, UPDATE ON {spool.schema}.entry TO {user}")
    admin.execute(f"GRANT SELECT, INSERT, DELETE ON {spool.schema}.chunk TO {user}")
    role.execute(f"SELECT {spool.schema}.enqueue('send', '{{}}', %s)", (b"x" * CHUNK,))
    assert admin.execute(f"SELECT size FROM {spool.schema}.entry").fetchall() == [(CHUNK,)]


def test_the_view_shows_entries_in_words(connection, admin, spool):
    """With times as times, and bytes that are no text in some form; without reservations and remembered names."""
    enqueued(connection, "send", "{}", b"data", name="a")
    enqueued(connection, "send", "ü\\", name="b", not_before="2100-01-01 0:00Z")
    enqueued(connection, "send", b"\xffa\x00", name="c")
    enqueued(connection, "send", "{}", name="d")
    for name, state in (("k", "k"), ("r", "r")):
        connection.execute(f"{OLD} VALUES ('{name}', '', '{state}', NULL, NULL, 9, 0, 0, 0, '', NULL)")
    connection.execute("INSERT INTO owner VALUES (77, 'here', 12, 'x')")
    connection.execute("UPDATE entry SET state = 'c', owner = 77, token = 1, progress = '{}' WHERE name = 'c'")
    connection.execute("UPDATE entry SET state = 'q', reason = 'odd' WHERE name = 'd'")
    found = connection.execute(
        "SELECT name, state, metadata, data_size, extract(year FROM due_at AT TIME ZONE 'UTC')::int, "
        "host, pid, progress, reason FROM entries ORDER BY name"
    ).fetchall()
    assert found == [
        ("a", "available", "{}", 4, None, None, None, None, None),
        ("b", "waiting", "ü\\", 0, 2100, None, None, None, None),
        ("c", "checked out", r"\377a\000", 0, None, "here", 12, "{}", None),
        ("d", "quarantined", "{}", 0, None, None, None, None, "odd"),
    ]
    ages = connection.execute("SELECT max(now() - written_at) < '1 min', max(now() - moved_at) < '1 min' FROM entries")
    assert ages.fetchall() == [(True, True)]


def test_who_may_only_read_the_view_can_lock_nothing(admin, role, spool, connection):
    """Nobody's `SELECT … FOR UPDATE`, in a session that was forgotten, keeps an entry from its readers."""
    enqueued(connection, "send", "{}")
    connection.commit()
    admin.execute(f"GRANT USAGE ON SCHEMA {spool.schema} TO {role.info.user}")
    admin.execute(f"GRANT SELECT ON {spool.schema}.entries TO {role.info.user}")
    assert role.execute(f"SELECT count(metadata) FROM {spool.schema}.entries").fetchall() == [(1,)]
    for query in (f"SELECT 1 FROM {spool.schema}.entries FOR UPDATE", f"SELECT 1 FROM {spool.schema}.entry"):
        with pytest.raises(refused.InsufficientPrivilege):
            role.execute(query.encode())


def test_a_state_can_be_asked_for_without_the_right_to_read_the_table(connection, admin, role, spool):
    """By who may only enqueue, and was told that a name is taken."""
    enqueued(connection, "send", "{}", name="a")
    connection.commit()
    ask = f"SELECT {spool.schema}.state_of('a'), {spool.schema}.state_of('b')".encode()
    admin.execute(f"GRANT USAGE ON SCHEMA {spool.schema} TO {role.info.user}")
    with pytest.raises(refused.InsufficientPrivilege):
        role.execute(ask)
    admin.execute(f"ALTER FUNCTION {spool.schema}.state_of(text) SECURITY DEFINER")
    assert role.execute(ask).fetchall() == [("a", None)]
