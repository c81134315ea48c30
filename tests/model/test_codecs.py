"""Codecs: how values become bytes and files, whose exceptions are whose, and where they run."""

from __future__ import annotations

import contextvars
import io
import json
import threading

import msgspec
import pytest

from helpers.spools import ANNE, Envelope, Mail, contents, put, quick_spool, state_of
from trio_multispool import (
    Bytes,
    CorruptData,
    CorruptMetadata,
    DataCodec,
    EncodingFailed,
    Err,
    Json,
    MessagePack,
    MetadataCodec,
    Ok,
    Spoolable,
    Text,
    Use,
)

pytestmark = pytest.mark.anyio


class Parcel(msgspec.Struct, tag=True):
    """One kind of thing."""

    weight: int


class Letter(msgspec.Struct, tag=True):
    """Another."""

    pages: int


ROUND_TRIPS = [
    (Json(Envelope), ANNE, b'{"recipient":"anne@example.org","attempts":0}'),
    (Json(list[int]), [1, 2], b"[1,2]"),
    (Json(Parcel | Letter), Letter(3), b'{"type":"Letter","pages":3}'),
    (Json(int | None), None, b"null"),
    (MessagePack(Envelope), ANNE, msgspec.msgpack.encode(ANNE)),
    (MessagePack(Parcel | Letter), Parcel(3), msgspec.msgpack.encode(Parcel(3))),
    (Bytes(), b"\x00\xff", b"\x00\xff"),
    (Bytes(), b"", b""),
    (Text(), "Grüße\r\n", "Grüße\r\n".encode()),
]


@pytest.mark.parametrize(("codec", "value", "raw"), ROUND_TRIPS)
async def test_a_codec_stores_these_bytes_and_reads_the_value_back(tmp_path, codec, value, raw):
    """Each is a codec of both kinds; files hold exactly its bytes, as metadata and as data."""
    assert isinstance(codec, MetadataCodec)
    assert isinstance(codec, DataCodec)
    assert codec.encode(value) == raw
    assert codec.decode(raw) == value
    file = io.BytesIO()
    codec.dump(value, file)
    assert file.getvalue() == raw
    assert codec.load(io.BytesIO(raw)) == value
    spool = await quick_spool(tmp_path / "spool", Spoolable(Mail, codec, codec))
    entry = (await spool.enqueue(Mail.SEND, value, value, name=Use("a"))).unwrap()
    assert (spool.path / "send" / "a").read_bytes() == raw
    assert (spool.path / ".data" / "a").read_bytes() == raw
    assert await entry.direct.contents() == Ok(value)
    assert await entry.direct.data_file.load() == Ok(value)


@pytest.mark.parametrize(
    ("codec", "raw"),
    [
        (Json(Envelope), b'{"recipient":3}'),
        (Json(Envelope), b""),
        (MessagePack(Envelope), b"\xc1"),
        (Text(), b"\xff"),
        (Json(Parcel | Letter), b'{"type":"Bottle"}'),
    ],
)
async def test_what_a_codec_cannot_read_is_corrupt(tmp_path, codec, raw):
    """`Err(CorruptMetadata)` and `Err(CorruptData)` say what the codec said."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)) as caught:
        codec.decode(raw)
    spool = await quick_spool(tmp_path / "spool", Spoolable(Mail, codec, codec))
    for place in ("send", ".data"):
        (spool.path / place / "a").write_bytes(raw)
    entry = spool.entry(Mail.SEND, "a").unwrap()
    told = f"{type(caught.value).__name__}: {caught.value}"
    assert await entry.direct.contents() == Err(CorruptMetadata("send", "a", told))
    assert await entry.direct.data_file.load() == Err(CorruptData("a", told))


@pytest.mark.parametrize(("codec", "value"), [(Bytes(), "text"), (Bytes(), None), (Text(), b"bytes"), (Text(), None)])
async def test_a_value_of_the_wrong_type_is_not_encoded(place, codec, value):
    """Neither text is taken for bytes nor bytes for text."""
    spool = await quick_spool(place, Spoolable(Mail, Envelope, codec))
    answer = await spool.enqueue(Mail.SEND, ANNE, value)
    assert isinstance(answer.error, EncodingFailed)
    assert answer.error.part == "data"
    assert "TypeError" in answer.error.reason


@pytest.mark.sample
async def test_everything_that_is_bytes_is_taken_for_bytes(place):
    """`bytearray` and `memoryview` are stored as they are."""
    spool = await quick_spool(place)
    for value in (bytearray(b"abc"), memoryview(b"abc")):
        entry = (await spool.enqueue(Mail.SEND, ANNE, value)).unwrap()
        assert await entry.direct.data_file.load() == Ok(b"abc")


class Streaming:
    """Data of lines, written and read a little at a time, with all that a binary file can do."""

    def dump(self, value: int, file) -> None:
        """Write that many lines, with a header that is filled in at the end, and a tail that is cut off."""
        file.write(b"0" * 8 + b"\n")
        for number in range(value):
            file.write(b"%d\n" % number)
        file.flush()
        end = file.tell()
        file.write(b"scribbles")
        file.seek(0)
        file.write(b"%08d" % value)
        file.seek(end)
        file.truncate()

    def load(self, file) -> int:
        """Count the lines, twice."""
        head = int(file.readline())
        first = sum(1 for _ in file)
        file.seek(9)
        assert first == len(file.readlines()) == head
        return head


async def test_a_data_codec_streams_to_a_file_and_from_one(tmp_path):
    """The file that a codec is given can be written in parts, sought, read by lines and truncated."""
    spool = await quick_spool(tmp_path / "spool", Spoolable(Mail, Envelope, Streaming()))
    entry = (await spool.enqueue(Mail.SEND, ANNE, 100_000)).unwrap()
    assert await entry.direct.data_file.load() == Ok(100_000)
    (await entry.direct.data_file.save(3)).unwrap()
    assert entry.direct.data_file.path.read_bytes() == b"00000003\n0\n1\n2\n"


async def test_a_codec_may_close_the_file(place):
    """What a codec wrote before it closed the file is stored."""

    class Closing:
        def dump(self, value: str, file) -> None:
            with io.TextIOWrapper(file, encoding="utf-8") as text:
                json.dump(value, text)

        def load(self, file) -> str:
            with io.TextIOWrapper(file, encoding="utf-8") as text:
                return json.load(text)

    spool = await quick_spool(place, Spoolable(Mail, Envelope, Closing()))
    entry = (await spool.enqueue(Mail.SEND, ANNE, "Grüße")).unwrap()
    assert await entry.direct.data_file.load() == Ok("Grüße")
    assert state_of(spool.location).faults() == []


WHO = contextvars.ContextVar("who", default="nobody")


async def test_codecs_and_generators_run_in_a_thread_with_the_callers_context(place):
    """They see the context variables of the task that called, and never block the event loop."""
    seen: list[tuple[str, str, bool]] = []
    loop_thread = threading.get_ident()

    class Watching:
        def note(self, what: str) -> None:
            seen.append((what, WHO.get(), threading.get_ident() == loop_thread))

        def encode(self, value: str) -> bytes:
            self.note("encode")
            return value.encode()

        def decode(self, raw: bytes) -> str:
            self.note("decode")
            return raw.decode()

        def dump(self, value: str, file) -> None:
            self.note("dump")
            file.write(value.encode())

        def load(self, file) -> str:
            self.note("load")
            return file.read().decode()

        def next(self, argument: None, attempt: int) -> str:
            self.note("next")
            return "a"

    codec = Watching()
    spool = await quick_spool(place, Spoolable(Mail, codec, codec, codec))
    WHO.set("me")
    entry = (await spool.enqueue(Mail.SEND, "m", "d")).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        (await job.data.load()).unwrap()
        (await job.remove()).unwrap()
    assert sorted(seen) == [(what, "me", False) for what in ("decode", "dump", "encode", "load", "next")]


@pytest.mark.parametrize("part", ["metadata", "data"])
async def test_the_exception_of_a_codec_is_the_cause_of_the_error(tmp_path, part):
    """The very object that a codec raised can be looked at."""
    error = FileNotFoundError("a dictionary that the codec needs")

    class Raising:
        def raising(self, *arguments: object) -> None:
            raise error

        encode = decode = dump = load = raising

    spool = await quick_spool(tmp_path / "good")
    await put(spool, Mail.SEND, "a")
    bad = await quick_spool(spool.path, Spoolable(Mail, **{"metadata": Envelope, "data": bytes, part: Raising()}))
    before = contents(spool.path)
    answer = await bad.enqueue(Mail.SEND, ANNE, b"")
    assert isinstance(answer.error, EncodingFailed)
    assert answer.error.__cause__ is error
    direct = bad.entry(Mail.SEND, "a").unwrap().direct
    answer = await (direct.contents() if part == "metadata" else direct.data_file.load())
    assert isinstance(answer.error, CorruptMetadata if part == "metadata" else CorruptData)
    assert answer.error.__cause__ is error
    assert contents(spool.path) == before


async def test_what_is_no_exception_passes_through_a_codec(tmp_path):
    """A `KeyboardInterrupt` in a codec is no `Err`; nothing is enqueued, and nothing stays checked out."""

    class Interrupted:
        def raising(self, *arguments: object) -> None:
            raise KeyboardInterrupt

        encode = decode = dump = load = raising

    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    before = contents(spool.path)
    interrupted = await quick_spool(spool.path, Spoolable(Mail, Interrupted(), Interrupted()))
    with pytest.raises(KeyboardInterrupt):
        await interrupted.enqueue(Mail.SEND, b"", b"")
    with pytest.raises(KeyboardInterrupt):
        await interrupted.entry(Mail.SEND, "a").unwrap().checkout()
    assert contents(spool.path) == before


async def test_large_data_is_written_and_read_whole(tmp_path):
    """Short writes and reads of the system are no concern of the codec."""
    from helpers.calls import FailingCalls

    class Short(FailingCalls):
        def write(self, fd: int, data) -> int:
            return super().write(fd, memoryview(data)[: max(1, len(data) // 2)])

        def read(self, fd: int, size: int) -> bytes:
            return super().read(fd, max(1, size // 2))

    value = bytes(range(256)) * 4096
    spool = await quick_spool(tmp_path / "spool", system_calls=Short())
    entry = (await spool.enqueue(Mail.SEND, Envelope("x" * 100_000), value)).unwrap()
    assert (await entry.direct.data_file.load()).unwrap() == value
    assert (await entry.direct.contents()).unwrap() == Envelope("x" * 100_000)
    assert entry.direct.data_file.path.read_bytes() == value
