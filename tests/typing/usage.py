"""The API as users write it, for the type checkers: each `assert_type` is a promise. Nothing here is run."""

# pyright: reportUnusedCallResult=false
# An `assert_type` returns what it is given. That results must be used is asserted in misuse.py.

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, NamedTuple, TypedDict, assert_never, assert_type

import msgspec
import pydantic

from trio_multispool import (
    CheckedOutEntry,
    Entry,
    Err,
    Exponential,
    GiveUp,
    Json,
    MessagePack,
    Missed,
    NameTaken,
    Ok,
    OutOfSpace,
    QueueReader,
    Release,
    Remove,
    Reserve,
    ReservedName,
    Retention,
    Retry,
    RetryLater,
    Save,
    Spool,
    Spoolable,
    Stat,
    Unavailable,
    Use,
    blocking,
    errors,
    every,
)
from trio_multispool.integrations.postgresql import EnqueueInError, enqueue_in
from trio_multispool.integrations.pydantic import PydanticCodec

if TYPE_CHECKING:
    import datetime
    from typing import BinaryIO

    import psycopg

    from trio_multispool import DataFile, Verdict


class Mail(enum.Enum):
    """The queues."""

    SEND = "send"
    FAILED = "failed"


class Envelope(msgspec.Struct):
    """The metadata."""

    recipient: str
    attempts: int = 0


class Parcel(msgspec.Struct, tag=True):
    """One kind of metadata."""

    weight: int


class Letter(msgspec.Struct, tag=True):
    """Another."""

    pages: int


class Model(pydantic.BaseModel):
    """A model of pydantic."""

    recipient: str


@dataclasses.dataclass
class Data:
    """A dataclass."""

    recipient: str


class Typed(TypedDict):
    """A dictionary with keys."""

    recipient: str


class Pair(NamedTuple):
    """A named tuple."""

    recipient: str


class ByPriority:
    """A name generator that wants an argument."""

    def next(self, argument: int, attempt: int) -> str:
        """Make a name."""
        return f"{argument}-{attempt}"


class Lines:
    """A data codec."""

    def dump(self, value: list[str], file: BinaryIO) -> None:
        """Write lines."""
        file.writelines(line.encode() for line in value)

    def load(self, file: BinaryIO) -> list[str]:
        """Read lines."""
        return file.read().decode().splitlines()


MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes)
MAIL_TYPE = assert_type(MAIL, Spoolable[Mail, Envelope, bytes, None])

PRIORITIES = Spoolable(queues=Mail, metadata=MessagePack(Envelope), data=Lines(), names=ByPriority())
PRIORITIES_TYPE = assert_type(PRIORITIES, Spoolable[Mail, Envelope, list[str], int])

BARE = Spoolable(queues=Mail, metadata=Envelope)
BARE_TYPE = assert_type(BARE, Spoolable[Mail, Envelope, None, None])

POST: Json[Parcel | Letter] = Json(Parcel | Letter)
UNION = Spoolable(queues=Mail, metadata=POST, data=str)
UNION_TYPE = assert_type(UNION, Spoolable[Mail, Parcel | Letter, str, None])

MODELS = Spoolable(queues=Mail, metadata=PydanticCodec(Model), data=PydanticCodec(list[Model]))
MODELS_TYPE = assert_type(MODELS, Spoolable[Mail, Model, list[Model], None])

EITHER: PydanticCodec[Model | Letter] = PydanticCodec(Model | Letter)
EITHER_TYPE = assert_type(Spoolable(Mail, EITHER), Spoolable[Mail, Model | Letter, None, None])

DATA = Spoolable(queues=Mail, metadata=Data, data=list[Pair])
DATA_TYPE = assert_type(DATA, Spoolable[Mail, Data, list[Pair], None])

TYPED = Spoolable(queues=Mail, metadata=Typed, data=Pair)
TYPED_TYPE = assert_type(TYPED, Spoolable[Mail, Typed, Pair, None])


async def deliver_and_count(_envelope: Envelope, data: DataFile[bytes]) -> tuple[Verdict[Mail, Envelope], int]:
    """Handle an entry, and answer a value as well."""
    return Remove(), (await data.stat()).unwrap().size


async def deliver(envelope: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
    """Handle an entry."""
    message = (await data.load()).unwrap()
    assert_type(message, bytes)
    if "@" not in envelope.recipient:
        return Save(Mail.FAILED, msgspec.structs.replace(envelope, attempts=envelope.attempts + 1))
    if not message:
        return Save(Mail.FAILED)
    return Remove() if envelope.attempts else Release()


async def try_to_deliver(envelope: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
    """Handle an entry that may fail."""
    assert_type(data.attempt, int)
    return RetryLater(60, "busy") if envelope.attempts else GiveUp("gone")


async def archive(envelope: Envelope, data: DataFile[bytes]) -> Remove | Release:
    """Have a look before an entry goes."""
    return Remove() if envelope.attempts and (await data.load()).unwrap() else Release()


async def make(tick: datetime.datetime) -> tuple[Envelope, bytes]:
    """Make the entry of a tick."""
    return Envelope(str(tick)), b""


def name_of(entry: Entry[Mail, Envelope, bytes]) -> str:
    """Take any entry of these types, whatever `entry.spool` is."""
    return entry.name


async def use_values(
    spool: Spool[Mail, Envelope, bytes], entry: Entry[Mail, Envelope, bytes, Spool[Mail, Envelope, bytes]]
) -> None:
    """Have handlers answer a value beside their verdict."""
    assert_type((await spool.with_entry(entry, deliver_and_count)).unwrap(), int)
    assert_type((await spool.try_with_entry(entry, deliver_and_count)).unwrap(), int | Unavailable)


async def use() -> None:
    """Use everything once."""
    spool = (await Spool.create("var/mail", MAIL)).unwrap()
    assert_type(spool, Spool[Mail, Envelope, bytes, None])
    envelope = Envelope("anne@example.org")
    match await spool.enqueue(Mail.SEND, envelope, b"Hello"):
        case Ok(enqueued):
            assert_type(enqueued, Entry[Mail, Envelope, bytes, Spool[Mail, Envelope, bytes]])
            _ = name_of(enqueued)
        case Err(OutOfSpace()):
            return
        case Err(NameTaken(name)):
            assert_type(name, str)
            return
        case Err(error):
            raise error
    entry = spool.entry(Mail.SEND, "name").unwrap()

    async with (await spool.reserve_name()).unwrap() as reserved:
        assert_type(reserved, ReservedName)
        _ = (await spool.enqueue(Mail.SEND, envelope, b"", name=Use(reserved))).unwrap()
    _ = (await spool.enqueue(Mail.SEND, envelope, b"", name=Use("key"))).unwrap()

    async with spool.reader(Mail.SEND) as reader:
        assert_type(reader, QueueReader[Mail, Envelope, bytes])
        (await reader.iter(deliver, concurrency=8)).unwrap()
        async for job in reader:
            assert_type(job, CheckedOutEntry[Mail, Envelope, bytes])
            async with job:
                job.update(lambda found: msgspec.structs.replace(found, attempts=found.attempts + 1))
                (await job.save(Mail.FAILED, job.metadata)).unwrap()
        taken = (await reader.dequeue()).unwrap()
        assert_type(taken, CheckedOutEntry[Mail, Envelope, bytes] | None)

    found = (await entry.try_checkout()).unwrap()
    if isinstance(found, Unavailable):
        match found:
            case Unavailable.GONE | Unavailable.BUSY:
                return
            case _:
                assert_never(found)
    assert_type(found, CheckedOutEntry[Mail, Envelope, bytes])
    assert_type((await entry.stat()).unwrap(), Stat)
    verdict = (await spool.with_entry(entry, deliver)).unwrap()
    assert_type(verdict, Save[Mail, Envelope] | Remove | Release | RetryLater | GiveUp)

    kept = Retention(max_age=60)
    async with spool.reader(
        Mail.SEND, limit_by=lambda each: each.recipient, limit=4, retention=kept, before_expiry=archive
    ) as reader:
        retry = Retry(attempts=5, backoff=Exponential(first=1), on=(OSError, TimeoutError), dead_letter=Mail.FAILED)
        (await reader.iter(try_to_deliver, retry=retry)).unwrap()
    assert_type((await spool.expire(Mail.FAILED, kept, before_expiry=archive)).unwrap(), list[str])
    use_once = Use("key", remember=60)
    maybe = (await spool.enqueue_if_absent(Mail.SEND, envelope, b"", name=use_once)).unwrap()
    assert_type(maybe, Entry[Mail, Envelope, bytes, Spool[Mail, Envelope, bytes]] | None)
    _ = await every(spool, Mail.SEND, 60, lambda tick: (Envelope(str(tick)), b""), name="minutely", missed=Missed.ALL)
    _ = await every(spool, Mail.SEND, 60, make, name="minutely")

    priorities = (await Spool.load("var/mail", PRIORITIES)).unwrap()
    _ = (await priorities.enqueue(Mail.SEND, envelope, ["one"], name=Reserve(3))).unwrap()


async def use_entries_without_data() -> None:
    """Leave the data out."""
    spool = (await Spool.create("var/mail", BARE)).expect("the spool of the mail")
    assert_type(spool, Spool[Mail, Envelope, None, None])
    entry = (await spool.enqueue(Mail.SEND, Envelope("anne@example.org"))).unwrap()
    assert_type(entry, Entry[Mail, Envelope, None, Spool[Mail, Envelope, None]])
    found = (await spool.enqueue_if_absent(Mail.SEND, Envelope("anne@example.org"), name=Use("key"))).unwrap_or(None)
    assert_type(found, Entry[Mail, Envelope, None, Spool[Mail, Envelope, None]] | None)
    many = await spool.enqueue_many(Mail.SEND, [Envelope("anne@example.org"), Envelope("bert@example.org")])
    assert_type([answer.map(lambda each: each.name).unwrap_or("none") for answer in many], list[str])
    async with spool.reader(Mail.SEND) as reader:
        reader.drain_on(15, timeout=10)


def use_it_in_synchronous_code() -> None:
    """Await nothing."""
    spool = blocking.Spool.create("var/mail", MAIL).unwrap()
    assert_type(spool, blocking.Spool[Mail, Envelope, bytes, None])
    envelope = Envelope("anne@example.org")
    entry = spool.enqueue(Mail.SEND, envelope, b"Hello").unwrap()
    assert_type(entry, Entry[Mail, Envelope, bytes, blocking.Spool[Mail, Envelope, bytes]])
    assert_type(name_of(entry), str)
    maybe = spool.enqueue_if_absent(Mail.SEND, envelope, b"", name=Use("key")).unwrap()
    assert_type(maybe, Entry[Mail, Envelope, bytes, blocking.Spool[Mail, Envelope, bytes]] | None)
    assert_type([each.name for each in spool.entries(Mail.SEND).unwrap()], list[str])
    for answer in spool.enqueue_many(Mail.SEND, [(envelope, b"Hello")]):
        assert_type(answer.unwrap(), Entry[Mail, Envelope, bytes, blocking.Spool[Mail, Envelope, bytes]])
    with blocking.Spool.load("var/mail", BARE).unwrap() as bare:
        found = bare.enqueue(Mail.SEND, envelope).unwrap()
        assert_type(found, Entry[Mail, Envelope, None, blocking.Spool[Mail, Envelope, None]])
        assert_type(bare.enqueue_many(Mail.SEND, [envelope])[0].unwrap().name, str)
    priorities = blocking.Spool.load("var/mail", PRIORITIES).unwrap()
    _ = priorities.enqueue(Mail.SEND, envelope, ["one"], name=Reserve(3)).unwrap()


async def enqueue_in_a_transaction(
    connection: psycopg.Connection,
    of_asyncio: psycopg.AsyncConnection[dict[str, str]],
    spool: Spool[Mail, Envelope, bytes],
) -> None:
    """On a connection of either kind, whatever rows it gives."""
    envelope = Envelope("anne@example.org")
    assert_type(enqueue_in(connection, spool, MAIL, Mail.SEND, envelope, b"Hello"), Ok[str] | Err[EnqueueInError])
    name = (await enqueue_in(of_asyncio, spool.location, BARE, Mail.SEND, envelope, not_before=60)).unwrap()
    assert_type(name, str)
    match enqueue_in(connection, spool, PRIORITIES, Mail.SEND, envelope, ["one"], name=Reserve(3)):
        case Ok(made):
            assert_type(made, str)
        case Err(NameTaken() | errors.EntryBusy() | errors.InvalidName() | errors.EncodingFailed()):
            pass
