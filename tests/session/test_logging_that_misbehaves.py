"""Logging that raises, and what hostile names and errors look like in the log."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from helpers.spools import Envelope, Mail, put, quick_spool, state_of
from trio_multispool import Bytes, Ok, Remove, Retry, Spoolable, Use
from trio_multispool.instrumentation import Enqueued, Enqueueing, Instrumentation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOGGER = logging.getLogger("trio_multispool")

HOSTILE = "\x1b[31mEVIL\x1b[0m\nCRITICAL a line that nobody logged\r\u202e\u2028\x9b31m\x00"
"""What a terminal would obey, and what would look like another record."""


class Broken(Exception):
    """Raised by logging."""


class Handler(logging.Handler):
    """A handler that raises, instead of calling `handleError`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise."""
        raise Broken


class Filter(logging.Filter):
    """A filter that raises."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Raise."""
        raise Broken


@contextlib.contextmanager
def handler_that_raises() -> Iterator[None]:
    """Add a handler that raises."""
    handler = Handler()
    LOGGER.addHandler(handler)
    yield
    LOGGER.removeHandler(handler)


@contextlib.contextmanager
def filter_that_raises() -> Iterator[None]:
    """Add a filter that raises to the logger."""
    broken = Filter()
    LOGGER.addFilter(broken)
    yield
    LOGGER.removeFilter(broken)


@contextlib.contextmanager
def filter_of_a_handler_that_raises() -> Iterator[None]:
    """Add a handler that has a filter that raises."""
    handler = logging.StreamHandler(io.StringIO())
    handler.addFilter(Filter())
    LOGGER.addHandler(handler)
    yield
    LOGGER.removeHandler(handler)


@contextlib.contextmanager
def factory_that_raises() -> Iterator[None]:
    """Let no record be made."""
    before = logging.getLogRecordFactory()

    def factory(*_args: Any, **_options: Any) -> logging.LogRecord:
        raise Broken

    logging.setLogRecordFactory(factory)
    yield
    logging.setLogRecordFactory(before)


BREAKING = [handler_that_raises, filter_that_raises, filter_of_a_handler_that_raises, factory_that_raises]


class Unspeakable(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        """Raise."""
        raise Broken


async def work_amid_trouble(path: Path, raised: Exception) -> None:
    """Have a good entry, one whose handler fails, one that cannot be decoded, and what a dead process has left."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.SEND, "bad", "fails", "good")
        (path / "send" / "bad").write_bytes(b"{")
        (path / ".registry" / "left").touch()

        async def handler(envelope: Envelope, _data: object) -> Remove:
            if envelope.recipient == "fails":
                raise raised
            return Remove()

        async with spool.reader(Mail.SEND) as reader:
            retry = Retry(attempts=1, dead_letter=Mail.FAILED)
            assert await reader.iter_available(handler, concurrency=2, retry=retry) == Ok(None)
        assert [recovered.name for recovered in (await spool.recover()).unwrap()] == ["left"]


@pytest.mark.anyio
@pytest.mark.parametrize("raised", [ValueError("no"), Unspeakable()], ids=["plain", "unspeakable"])
@pytest.mark.parametrize("breaking", [contextlib.nullcontext, *BREAKING])
async def test_logging_that_raises_changes_no_operation(breaking, raised, tmp_path, caplog, capsys):
    """Readers go on, failed entries are dead letters, junk is set aside, and recovery recovers."""
    caplog.set_level(logging.DEBUG, logger="trio_multispool")
    with breaking():
        await work_amid_trouble(tmp_path / "spool", raised)
    state = state_of(tmp_path / "spool")
    assert state.available == {"send": {}, "retry": {}, "failed": {"fails": state.available["failed"]["fails"]}}
    assert sorted((tmp_path / "spool" / ".quarantine" / "send").iterdir()) == [
        tmp_path / "spool" / ".quarantine" / "send" / "bad"
    ]
    assert state.faults() == []
    lost = breaking is not contextlib.nullcontext or isinstance(raised, Unspeakable)
    assert ("Broken" in capsys.readouterr().err) == lost


@pytest.mark.anyio
@pytest.mark.parametrize("wanted", [True, False])
async def test_a_record_that_is_lost_is_told_as_logging_does(wanted, tmp_path, capsys, monkeypatch):
    """With its traceback on standard error, unless `logging.raiseExceptions` is off."""
    monkeypatch.setattr(logging, "raiseExceptions", wanted)
    with handler_that_raises():
        await work_amid_trouble(tmp_path / "spool", ValueError("no"))
    assert ("Broken" in capsys.readouterr().err) == wanted


@pytest.mark.anyio
async def test_a_record_that_is_lost_where_there_is_no_standard_error_harms_nothing(tmp_path, monkeypatch):
    """A daemon may have none, or a closed one."""
    closed = open(tmp_path / "closed", "w", encoding="utf-8")  # noqa: ASYNC230, SIM115  # closed at once
    closed.close()
    with handler_that_raises():
        for number, stream in enumerate((None, closed)):
            monkeypatch.setattr(sys, "stderr", stream)
            await work_amid_trouble(tmp_path / f"spool{number}", ValueError("no"))


def shown(record: logging.LogRecord) -> list[str]:
    """Return the lines of a record as an ordinary formatter makes them."""
    return logging.Formatter("%(levelname)s %(message)s").format(record).split("\n")


@pytest.mark.anyio
async def test_what_comes_from_outside_is_printable_in_the_log(tmp_path, caplog):
    """Names, keys of metadata and errors: none writes a line of its own, or anything that a terminal would obey."""
    caplog.set_level(logging.DEBUG, logger="trio_multispool")

    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        recipient: str

    class Hooks(Instrumentation):
        def on_enqueue(self, enqueued: Enqueued) -> None:
            raise ValueError(HOSTILE)

    path, name = tmp_path / "spool", "bidi\u202e\u2028"
    loose = Spoolable(queues=Mail, metadata=Bytes(), data=bytes)
    strict = Spoolable(queues=Mail, metadata=Strict, data=bytes)
    async with (
        await quick_spool(path, loose, instrumentation=Hooks()) as producer,
        await quick_spool(path, strict) as spool,
    ):
        unknown = msgspec.json.encode({"recipient": "a", HOSTILE: 1})
        (await producer.enqueue(Mail.SEND, unknown, b"", name=Use(name))).unwrap()
        (await producer.enqueue(Mail.RETRY, b'{"recipient": "b"}', b"", name=Use(f"{name}2"))).unwrap()
        (path / ".registry" / f"{name}3").touch()

        async def handler(_metadata: object, _data: object) -> Remove:
            raise OSError(HOSTILE)

        def key(_metadata: object) -> str:
            raise LookupError(HOSTILE)

        for queue in (Mail.SEND, Mail.RETRY):
            async with spool.reader(queue, limit_by=key, limit=1) as reader:
                (await reader.iter_available(handler, retry=Retry(attempts=1, dead_letter=Mail.FAILED))).unwrap()
        _ = (await spool.recover()).unwrap()
    events = {"hook_failed", "quarantined", "dead_lettered", "no_key", "collected"}
    assert {f"multispool.{event}" for event in events} == {record.__dict__["event"] for record in caplog.records}
    for record in caplog.records:
        first, *more = shown(record)
        assert first.isprintable()
        assert [line for line in more if not (line.startswith("  ") and line.isprintable())] == []
    told = "\n".join(line for record in caplog.records for line in shown(record))
    assert told.count("\\x1b[31mEVIL\\x1b[0m") == len(events) - 1
    assert {record.__dict__.get("entry") for record in caplog.records} == {None, name, f"{name}2", f"{name}3"}


@pytest.mark.sample
@pytest.mark.anyio
async def test_a_hook_without_a_name_of_its_own_may_raise_too(place, caplog):
    """A mock and a `functools.partial` have no `__name__`."""

    class Calling:
        def __call__(self, _told: object) -> None:
            raise ValueError

    hooks = Instrumentation()
    hooks.on_enqueue = Calling()  # type: ignore[method-assign]  # a user's
    async with await quick_spool(place, instrumentation=hooks) as spool:
        await put(spool, Mail.SEND, "a")
    assert [record.__dict__["hook"] for record in caplog.records] == ["Calling"]


@pytest.mark.anyio
@pytest.mark.parametrize("carrier", [5, {"a": 1}, {"a": "\ud800"}, {"a": object()}, [("a", "b", "c")]])
async def test_a_carrier_that_cannot_travel_is_left_behind(carrier, place, caplog):
    """The entries are enqueued without it, and the log says so once."""

    class Hooks(Instrumentation):
        carries = True

        def enqueueing(self, enqueueing: Enqueueing) -> Any:
            return contextlib.nullcontext(carrier)

    async with await quick_spool(place, instrumentation=Hooks()) as spool:
        await put(spool, Mail.SEND, "a", "b")
    assert sorted(state_of(place).available["send"]) == ["a", "b"]
    assert {record.__dict__["hook"] for record in caplog.records} == {"enqueueing"}
