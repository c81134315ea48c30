"""Entries that failed, on the command line: what `show` tells of their attempts, and giving them back."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from helpers.spools import MAIL, START, Mail, Wall, put, quick_spool, state_of
from trio_multispool import Exponential, Remove, Retry
from trio_multispool.clock import this_process
from trio_multispool.model.attempts import ATTEMPTS, Mark, begun, encode_history

if TYPE_CHECKING:
    from pathlib import Path

RETRY = Retry(attempts=2, backoff=Exponential(first=10, jitter=0), dead_letter=Mail.FAILED)
WHEN = f"{datetime.datetime.fromtimestamp(START, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


async def failing(_envelope: object, _data: object) -> Remove:
    """Be a handler."""
    error = OSError("no route")
    error.add_note("to example.org")
    raise error


def fail(path: Path, times: int) -> None:
    """Make a spool with an entry that has failed so often."""

    async def main() -> None:
        wall = Wall()
        async with await quick_spool(path, MAIL, now=wall) as spool:
            await put(spool, Mail.SEND, "a")
            for _ in range(times):
                async with spool.reader(Mail.SEND) as reader:
                    (await reader.iter_available(failing, retry=RETRY)).unwrap()
                wall.time += 10

    anyio.run(main)


def test_show_tells_of_each_attempt(multispool, spool):
    """Who made it, when, and why it failed; and the last traceback, with its notes."""
    fail(spool, 2)
    host, pid = this_process()
    lines = multispool.done("show", spool, "a").splitlines()
    first = lines.index("attempts  2, given up")
    assert lines[first + 1] == f"    1  {WHEN}, send, {host}[{pid}], took 0.0s: OSError: no route"
    assert lines[first + 2].endswith("OSError: no route")
    traceback = [line.strip() for line in lines[first + 3 :]]
    assert traceback[0] == "Traceback (most recent call last):"
    assert "OSError: no route" in traceback
    assert "to example.org" in traceback
    assert lines[-3:] == ["{", *lines[-2:]] or lines[-1] == "}", "the metadata comes last"


def test_show_tells_scripts_all_of_it(multispool, spool):
    """And of an entry that never failed, that there is no history."""
    fail(spool, 1)
    multispool.done("put", spool, "send", "-", "--name", "b", input="")
    assert json.loads(multispool.done("show", spool, "b", "--json"))["history"] is None
    found: dict[str, Any] = json.loads(multispool.done("show", spool, "a", "--json"))["history"]
    [attempt] = found.pop("attempts")
    assert found == {"queue": "send", "spent": 1, "given_up": False}
    failure = attempt.pop("failure")
    assert (failure["type"], failure["message"], failure["group"]) == ("OSError", "no route", [])
    host, pid = this_process()
    assert attempt == {
        "number": 1,
        "queue": "send",
        "began": START,
        "host": host,
        "pid": pid,
        "ended": START,
        "next_at": START + 10,
    }


def test_show_tells_of_an_attempt_that_did_not_end(multispool, spool):
    """Its worker died, unless somebody has the entry: then it is under way. A time that is none is shown as it is."""
    fail(spool, 0)
    history = begun(None, Mark("send", 1e300, "there", 7))
    (spool / ".notes").mkdir(exist_ok=True)
    (spool / ".notes" / "a").write_bytes(msgspec.json.encode({ATTEMPTS: msgspec.Raw(encode_history(history))}))
    lines = multispool.done("show", spool, "a").splitlines()
    assert "attempts  1, 1 count in send" in lines
    assert "    1  at 1e+300, send, there[7]: its worker died" in lines
    (spool / "send" / "a").rename(spool / "send" / ".checkout" / "a")
    assert "    1  at 1e+300, send, there[7]: under way" in multispool.done("show", spool, "a").splitlines()


def test_retry_gives_dead_letters_back_with_their_history(multispool, spool):
    """And with all their attempts."""
    fail(spool, 2)
    multispool.done("retry", spool, "failed", "send", "--all")
    assert state_of(spool).names("send") == ["a"]
    told = "attempts  2, given up before, and put back: none of them counts"
    assert told in multispool.done("show", spool, "a").splitlines()
