"""Enqueueing in a transaction of the program's own: with it, the entry is there, and without it, it never was."""

from __future__ import annotations

import asyncio
import datetime
import enum
import math
import os
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
import pytest
import trio
from psycopg import errors as refused
from psycopg.rows import dict_row
from trio.testing import wait_all_tasks_blocked

from helpers.postgresql import server
from trio_multispool import (
    EncodingFailed,
    EntryBusy,
    Err,
    InvalidName,
    NameTaken,
    NotASpool,
    Ok,
    Reserve,
    Spool,
    Spoolable,
    StoreUnreachable,
    UnreadErrWarning,
    Use,
    errors,
)
from trio_multispool.integrations import postgresql
from trio_multispool.integrations.postgresql import enqueue_in

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgresql


class Mail(enum.Enum):
    """The queues."""

    SEND = "send"
    FAILED = "failed"


class Other(enum.Enum):
    """Those of another spool."""

    SEND = "send"


class Streamed:
    """A codec that writes piece by piece."""

    def dump(self, value: bytes, file: Any, /) -> None:
        """Write."""
        for piece in range(0, len(value), 1000):
            file.write(value[piece : piece + 1000])

    def load(self, file: Any, /) -> bytes:
        """Read."""
        return bytes(file.read())


MAIL = Spoolable(queues=Mail, metadata=dict[str, int], data=bytes)
BARE = Spoolable(queues=Mail, metadata=dict[str, int])


@pytest.fixture
def location() -> Iterator[str]:
    """Return where a spool can be made."""
    name = f"of_a_transaction_{os.getpid()}"
    server().drop(name)
    yield server().url(name)
    server().drop(name)


@pytest.fixture
async def spool(location: str):
    """Return an open spool of the server."""
    async with (await Spool.create(location, MAIL)).unwrap() as spool:
        yield spool


@pytest.fixture
def connection(spool) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of the program, in a transaction when it does something."""
    with psycopg.connect(server().base) as connection:
        yield connection
        connection.rollback()


def schema_of(spool: Spool[Any, Any, Any, Any]) -> str:
    """Return the schema in which a spool is."""
    return spool.location.rpartition("=")[2]


async def names(spool: Spool[Mail, Any, Any, Any], queue: Mail = Mail.SEND) -> list[str]:
    """Return the names in a queue."""
    return [entry.name for entry in (await spool.entries(queue)).unwrap()]


async def test_the_entry_comes_with_the_transaction_or_never(spool, connection):
    """Not before the commit, and not at all if it is rolled back."""
    gone = enqueue_in(connection, spool, MAIL, Mail.SEND, {"a": 1}, b"data").unwrap()
    assert await names(spool) == []
    connection.rollback()
    name = enqueue_in(connection, spool, MAIL, Mail.SEND, {"a": 1}, b"data").unwrap()
    connection.commit()
    assert await names(spool) == [name]
    assert name > gone
    async with (await spool.entry(Mail.SEND, name).unwrap().checkout()).unwrap() as job:
        assert job.metadata == {"a": 1}
        assert (await job.data.load()).unwrap() == b"data"
        (await job.remove()).unwrap()


@pytest.mark.parametrize("size", [0, 70_000, 600_000])
async def test_data_of_any_codec_and_size_arrive(spool, connection, size):
    """Also of a codec that streams, though they are in memory as a whole."""
    data = os.urandom(size)
    streamed = Spoolable(queues=Mail, metadata=dict[str, int], data=Streamed())
    name = enqueue_in(connection, spool, streamed, Mail.SEND, {}, data).unwrap()
    connection.commit()
    async with (await spool.entry(Mail.SEND, name).unwrap().checkout()).unwrap() as job:
        assert (await job.data.load()).unwrap() == data
        (await job.release()).unwrap()


async def test_entries_without_data_and_a_location_for_the_spool(spool, connection, location):
    """A process that only enqueues need not open the spool."""
    name = enqueue_in(connection, location, BARE, Mail.FAILED, {"a": 1}).unwrap()
    connection.commit()
    assert await names(spool, Mail.FAILED) == [name]


async def test_a_waiting_reader_is_woken_by_the_commit(spool, connection):
    """It need not poll: the transaction itself tells it."""
    async with spool.reader(Mail.SEND, poll_interval=3600) as reader, trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 60

        @nursery.start_soon
        async def _take() -> None:
            job = (await reader.dequeue()).unwrap()
            assert job.name == made
            (await job.remove()).unwrap()
            nursery.cancel_scope.deadline = math.inf

        await wait_all_tasks_blocked(0.2)
        made = enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"").unwrap()
        connection.commit()
    assert not nursery.cancel_scope.cancelled_caught


async def test_a_name_that_is_taken_leaves_the_transaction_whole(spool, connection):
    """The answer says whether the entry is there or its name remembered, and all else can be committed."""
    use = Use("order-1", remember=datetime.timedelta(days=1))
    assert enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=use) == Ok("order-1")
    connection.commit()
    assert enqueue_in(connection, spool, MAIL, Mail.FAILED, {}, b"", name=use) == Err(NameTaken("order-1"))
    assert enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=Use("order-2")) == Ok("order-2")
    connection.commit()
    async with (await spool.entry(Mail.SEND, "order-1").unwrap().checkout()).unwrap() as job:
        (await job.remove()).unwrap()
    taken = enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=use)
    assert taken == Err(NameTaken("order-1", finished=True))
    assert await names(spool) == ["order-2"]


async def test_a_reserved_name_is_busy(spool, connection):
    """Whoever has reserved it may be about to use it; a name that another spool has reserved cannot be given."""
    columns = "name, queue, state, owner, token, written_at, moved_at, data_at, metadata"
    held = f"INSERT INTO {schema_of(spool)}.entry ({columns}) VALUES ('held', '', 'r', 1, 1, 0, 0, 0, '')"
    server().execute(held)
    answer = enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=Use("held"))
    assert answer == Err(EntryBusy("held"))
    async with (await spool.reserve_name()).unwrap() as reserved:
        with pytest.raises(TypeError, match="is reserved by an open spool"):
            enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=Use(reserved))


async def test_what_cannot_be_stored_is_an_answer_before_the_server_is_asked(spool, connection):
    """The transaction has not even begun."""
    answer = enqueue_in(connection, spool, MAIL, Mail.SEND, {"a": "x"}, b"")  # type: ignore[dict-item]
    assert isinstance(answer.error, EncodingFailed)
    assert answer.error.part == "metadata"
    assert isinstance(enqueue_in(connection, spool, MAIL, Mail.SEND, {}, 5).error, EncodingFailed)
    invalid = enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=Use("a/b"))
    assert invalid == Err(InvalidName("a/b", "it contains a slash"))
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


async def test_what_aborts_the_transaction_is_raised(spool, connection):
    """An answer that nobody looks at would let the program commit, and PostgreSQL would commit nothing, in silence."""
    server().execute(f"DELETE FROM {schema_of(spool)}.queue WHERE name = 'failed'")
    with pytest.raises(refused.ForeignKeyViolation, match="there is no queue 'failed'") as caught:
        enqueue_in(connection, spool, MAIL, Mail.FAILED, {}, b"")
    assert caught.value.__notes__ == [
        f"in the enqueue into failed of the spool {spool.location}: nothing of this transaction will be committed"
    ]
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
    connection.rollback()
    elsewhere = spool.location.rpartition("=")[0] + "=is_not_there"
    with pytest.raises(refused.InvalidSchemaName):
        enqueue_in(connection, elsewhere, MAIL, Mail.SEND, {}, b"")


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"queue": Other.SEND}, TypeError, "is no member of Mail, the queues of this spool"),
        ({"name": "order-1"}, TypeError, r"a name is Reserve\(…\) or Use\(…\), not 'order-1'"),
        ({"not_before": "tomorrow"}, TypeError, "a duration"),
        ({"not_before": -1}, ValueError, "not negative"),
        ({"not_before": datetime.datetime(2100, 1, 1)}, ValueError, "with a time zone"),  # noqa: DTZ001  # the point
        ({"spool": "/srv/mail"}, NotASpool, "begins with postgresql://"),
    ],
)
async def test_what_only_a_mistake_brings_is_raised(spool, connection, changed, error, says):
    """As by `Spool.enqueue`, and before the server is asked."""
    given = {"spool": spool, "queue": Mail.SEND, "name": None, "not_before": None, **changed}
    with pytest.raises(error, match=says):
        enqueue_in(
            connection,
            given["spool"],
            MAIL,
            given["queue"],
            {},
            b"",
            name=given["name"],
            not_before=given["not_before"],
        )
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


async def test_an_entry_may_wait(spool, connection):
    """Until a time, or for a while by the server's clock; what has passed is no delay."""
    at = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
    past = at.replace(year=2000)
    for key, when in {"at": at, "long": datetime.timedelta(days=1), "past": past, "none": 0}.items():
        enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=Use(key), not_before=when).unwrap()
    connection.commit()
    assert await names(spool) == ["none", "past"]
    assert (await spool.find("at")).unwrap().due_at == at
    ahead = (await spool.find("long")).unwrap().due_at - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(hours=23) < ahead < datetime.timedelta(hours=25)


async def test_a_name_can_be_remembered_for_ever(spool, connection):
    """Longer than any interval of PostgreSQL."""
    use = Use("order-1", remember=math.inf)
    assert enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=use).unwrap() == "order-1"


async def test_a_name_generator_of_the_spoolable_is_asked_until_a_name_is_free(spool, connection):
    """With what `Reserve` gives it, and the number of the attempt."""

    class Numbered:
        def next(self, argument: str | None, attempt: int) -> str:
            return f"{argument}-{attempt}"

    numbered = Spoolable(queues=Mail, metadata=dict[str, int], names=Numbered())
    made = [enqueue_in(connection, spool, numbered, Mail.SEND, {}, name=Reserve("x")).unwrap() for _ in range(3)]
    assert made == ["x-0", "x-1", "x-2"]
    assert enqueue_in(connection, spool, numbered, Mail.SEND, {}) == Ok("None-0")

    class Stubborn:
        def next(self, _argument: object, _attempt: int) -> str:
            return "x-0"

    stubborn = Spoolable(queues=Mail, metadata=dict[str, int], names=Stubborn())
    assert enqueue_in(connection, spool, stubborn, Mail.SEND, {}) == Err(NameTaken("x-0"))


async def test_a_carrier_goes_along(spool, connection):
    """So a trace goes on where the entry is worked on."""
    name = enqueue_in(connection, spool, BARE, Mail.SEND, {}, carrier={"traceparent": "00-1"}).unwrap()
    connection.commit()
    assert spool._session.storage.carrier(name) == {"traceparent": "00-1"}


async def test_a_connection_of_any_kind_will_do(spool):
    """One that gives rows as dictionaries, has placeholders of its own, is in a pipeline, or commits by itself."""
    with psycopg.connect(
        server().base, autocommit=True, row_factory=dict_row, cursor_factory=psycopg.RawCursor
    ) as connection:
        first = enqueue_in(connection, spool, BARE, Mail.SEND, {}).unwrap()
        with connection.pipeline():
            second = enqueue_in(connection, spool, BARE, Mail.SEND, {}).unwrap()
    with psycopg.connect(server().base, cursor_factory=psycopg.ClientCursor) as connection:
        third = enqueue_in(connection, spool, BARE, Mail.SEND, {}).unwrap()
    assert await names(spool) == [first, second, third]


async def test_in_two_transactions_the_second_of_a_name_waits_for_the_first(spool, connection):
    """With a limit for that wait, the program gets psycopg's error, and not an answer that it may overlook."""
    enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=Use("x")).unwrap()
    with psycopg.connect(server().base) as other:
        other.execute("SET LOCAL lock_timeout = 10")
        with pytest.raises(refused.LockNotAvailable):
            enqueue_in(other, spool, MAIL, Mail.SEND, {}, b"", name=Use("x"))


@pytest.mark.parametrize("data", [b"", b"x" * 100_000])
async def test_a_name_of_a_transaction_that_is_under_way_is_busy(spool, connection, data):
    """The spool does not wait for a program that takes its time; and those that come at the same time get through."""
    enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=Use("x")).unwrap()
    answers = await spool.enqueue_many(Mail.SEND, [({}, data)] * 3, names=[Use("w"), Use("x"), Use("y")])
    assert answers[1] == Err(EntryBusy("x"))
    assert await names(spool) == ["w", "y"]
    assert await spool.enqueue_if_absent(Mail.SEND, {}, data, name=Use("x")) == Err(EntryBusy("x"))
    connection.rollback()
    assert (await spool.enqueue(Mail.SEND, {}, data, name=Use("x"))).unwrap().name == "x"


async def test_what_goes_wrong_with_one_name_is_not_the_answer_of_the_others(spool, monkeypatch):
    """Those that were committed with it have been made, and are told so."""

    def unreachable(*_: object) -> NoReturn:
        raise StoreUnreachable("look for a name in", spool.location, "gone")

    (await spool.enqueue(Mail.SEND, {}, b"", name=Use("x"))).unwrap()
    monkeypatch.setattr("trio_multispool.storage.postgres.enqueue.why_not", unreachable)
    answers = await spool.enqueue_many(Mail.SEND, [({}, b"")] * 3, names=[Use("w"), Use("x"), Use("y")])
    assert [isinstance(answer, Ok) for answer in answers] == [True, False, True]
    assert isinstance(answers[1].error, StoreUnreachable)
    assert await names(spool) == ["w", "x", "y"]


async def test_a_name_of_a_transaction_is_busy_for_upkeep_too(spool, connection):
    """Of a name that was let go, or is remembered no longer, and that a transaction has taken over."""
    held = "name, queue, state, owner, token, due_at, written_at, moved_at, data_at, metadata"
    for name, row in {"r": "'', 'r', 0, 1, NULL", "k": "'', 'k', NULL, NULL, 1"}.items():
        server().execute(f"INSERT INTO {schema_of(spool)}.entry ({held}) VALUES ('{name}', {row}, 0, 0, 0, '')")
        enqueue_in(connection, spool, MAIL, Mail.SEND, {}, b"", name=Use(name)).unwrap()
        assert await spool.enqueue(Mail.SEND, {}, b"", name=Use(name)) == Err(EntryBusy(name))
        assert spool._session.storage.recover_name(name) is None
    connection.commit()
    assert await names(spool) == ["k", "r"]


def test_with_an_async_connection_it_is_awaited(location):
    """The same answers, and the same that is raised, in asyncio."""

    async def main() -> None:
        async with (
            (await Spool.create(location, MAIL)).unwrap() as spool,
            await psycopg.AsyncConnection.connect(server().base) as connection,
        ):
            name = (await enqueue_in(connection, spool, MAIL, Mail.SEND, {"a": 1}, b"data")).unwrap()
            await connection.rollback()
            again = await enqueue_in(connection, spool, BARE, Mail.SEND, {"a": 1}, name=Use(name))
            assert again == Ok(name)
            await connection.commit()
            assert await enqueue_in(connection, location, BARE, Mail.SEND, {}, name=Use(name)) == Err(NameTaken(name))
            with pytest.raises(refused.InvalidSchemaName) as caught:
                await enqueue_in(connection, "postgresql:///?spool=is_not_there", BARE, Mail.SEND, {})
            assert len(caught.value.__notes__) == 1
            await connection.rollback()
            assert await names(spool) == [name]

    asyncio.run(main())


async def test_an_err_that_is_dropped_is_told(spool, connection):
    """As for every operation: with the line that called, or awaited."""
    enqueue_in(connection, spool, BARE, Mail.SEND, {}, name=Use("x")).unwrap()
    with pytest.warns(UnreadErrWarning, match="enqueue into send .*: NameTaken") as told:
        enqueue_in(connection, spool, BARE, Mail.SEND, {}, name=Use("x"))
    assert told[0].filename == __file__


def test_what_it_answers_is_what_enqueue_answers():
    """So a program can treat both alike."""
    assert set(postgresql.EnqueueInError.__args__) <= set(errors.EnqueueError.__args__)
