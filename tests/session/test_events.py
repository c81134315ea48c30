"""What the library logs: every record has an event of the table and its fields, and the table in the docs is true."""

from __future__ import annotations

import ast
import errno
import logging
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import trio_multispool
from helpers.calls import FailingCalls
from helpers.spools import Mail, put, quick_spool
from trio_multispool import CorruptMetadata, events
from trio_multispool.events import Event, about

PACKAGE = Path(trio_multispool.__file__).parent
PAGE = PACKAGE.parents[1] / "docs" / "instrumentation.md"
FIELDS = {"spool", *events.FIELDS}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


class Call(NamedTuple):
    """A place in the source that writes to the log."""

    where: str
    level: str
    event: str | None
    fields: frozenset[str]


def log_calls() -> list[Call]:
    """Find all of them: calls of `events.log`, and of a logger's own methods, which are to have no event."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and path.name != "events.py":
                where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
                if ast.unparse(node.func) == "log":
                    found.append(described(where, node))
                elif isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS and is_logger(node.func.value):
                    found.append(Call(where, node.func.attr, None, frozenset()))
    return found


def is_logger(node: ast.expr) -> bool:
    """Tell whether something is called as loggers are called here."""
    return ast.unparse(node).rpartition(".")[2] in {"log", "_LOG", "LOGGER", "logger", "logging"}


def described(where: str, call: ast.Call) -> Call:
    """Read a call's level, event and fields; what is only told in the message is no field."""
    write, event = call.args[:2]
    assert isinstance(write, ast.Attribute), where
    fields = {word.arg for word in call.keywords if word.arg is not None} & FIELDS
    return Call(where, write.attr, ast.unparse(event).removeprefix("Event."), frozenset(fields) | {"spool"})


CALLS = log_calls()


def rows() -> dict[str, tuple[set[str], set[str]]]:
    """Return the table of the page: by the events' names, their levels and fields."""
    found = re.findall(
        r"^\| `(multispool\.\w+)` \| ([^|]*) \| ([^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {
        name: (set(re.findall(r"\w+", levels)), set(re.findall(r"`(\w+)`", fields))) for name, levels, fields in found
    }


def test_every_log_call_has_an_event():
    """No record is without a name that programs can match."""
    assert len(CALLS) >= 14
    assert [call.where for call in CALLS if call.event not in Event.__members__] == []


def test_every_event_is_logged_somewhere():
    """The table promises nothing that does not exist."""
    assert {call.event for call in CALLS} == set(Event.__members__)


def test_the_table_in_the_docs_has_all_events_with_their_levels_and_fields():
    """What the page says is what the source does."""
    truth: dict[str, tuple[set[str], set[str]]] = {}
    for call in CALLS:
        levels, fields = truth.setdefault(Event[call.event], (set(), set()))
        levels.add(call.level)
        fields |= call.fields
    assert rows() == {str(name): found for name, found in truth.items()}


def test_every_event_says_what_it_means():
    """Each constant has a docstring, and its name says `multispool.` and what it is called in the source."""
    tree = ast.parse((PACKAGE / "events.py").read_text(encoding="utf-8"))
    [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef)]
    for assigned, told in zip(body[1::2], body[2::2], strict=True):
        assert isinstance(assigned, ast.Assign)
        assert isinstance(told, ast.Expr)
        assert isinstance(told.value, ast.Constant)
        assert str(told.value.value).endswith(".")
    assert all(event == f"multispool.{event.name.lower()}" for event in Event)


def test_fields_that_do_not_apply_are_left_out_and_none_collides_with_a_records_own():
    """`logging` refuses an `extra` that would overwrite what it has itself."""
    assert about(Event.POLLING, "p") == {"event": "multispool.polling", "spool": "p"}
    fields = about(Event.POLLING, "p", queue="q", entry="e", error="why", hook="h")
    record = logging.getLogger("trio_multispool").makeRecord("n", logging.INFO, "f", 1, "m", (), None, extra=fields)
    assert fields.items() <= record.__dict__.items()


@pytest.mark.anyio
async def test_a_record_carries_its_fields(tmp_path, caplog):
    """A formatter for structured logs finds the spool, the queue, the entry and the exception itself."""
    async with await quick_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, "a")
        (tmp_path / "spool" / "send" / "a").write_bytes(b"{")
        async with spool.reader(Mail.SEND) as reader:
            assert (await reader.dequeue_available()).unwrap() is None
    [record] = caplog.records
    told = record.__dict__
    assert isinstance(told.pop("error"), CorruptMetadata)
    expected = {"event": "multispool.quarantined", "spool": str(tmp_path / "spool"), "queue": "send", "entry": "a"}
    assert expected.items() <= told.items()


@pytest.mark.anyio
async def test_what_cannot_be_set_aside_is_not_logged_as_set_aside(tmp_path, caplog):
    """The quarantine cannot be made; the entry stays in its queue, and the log says that."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        await put(spool, Mail.SEND, "a")
        (tmp_path / "spool" / "send" / "a").write_bytes(b"{")
        calls.fail("make_directory", errno.ENOSPC)
        async with spool.reader(Mail.SEND) as reader:
            assert (await reader.dequeue_available()).unwrap() is None
    assert [record.__dict__["event"] for record in caplog.records] == ["multispool.not_quarantined"]
