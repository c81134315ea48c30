"""An `Err` that is dropped before its error was looked at is told of, with the line that awaited it."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import re
import subprocess
import sys
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.spools import ANNE, BERT, Mail, put, quick_spool
from trio_multispool import (
    Err,
    NameTaken,
    Ok,
    Release,
    Remove,
    Result,
    Retention,
    Spool,
    UnreadErrWarning,
    Use,
    every,
)
from trio_multispool.model import unread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.anyio]

TAKEN = Use("taken")


async def spool_with_one(path: Path) -> Spool[Any, Any, Any, Any]:
    """Make a spool in which the name is taken."""
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, TAKEN.name)
    return spool


def told_by(action: Callable[[], object]) -> list[str]:
    """Return what is warned of an action, as Python's own filter for development does it."""
    with warnings.catch_warnings(record=True) as told:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        action()
        gc.collect()
    return [str(each.message) for each in told if each.category is UnreadErrWarning]


def unwrap(answer: Result[Any, Any]) -> None:
    """Raise its error."""
    with pytest.raises(NameTaken):
        answer.unwrap()


def expect(answer: Result[Any, Any]) -> None:
    """Raise its error with a note."""
    with pytest.raises(NameTaken):
        answer.expect("nobody has it")


def match(answer: Result[Any, Any]) -> None:
    """Bind the error."""
    match answer:
        case Err(error):
            assert isinstance(error, NameTaken)
        case _:
            raise AssertionError(answer)


def match_deeper(answer: Result[Any, Any]) -> None:
    """Match on the error's fields."""
    match answer:
        case Err(NameTaken("taken")):
            pass
        case _:
            raise AssertionError(answer)


LOOKS: list[Callable[[Any], object]] = [
    lambda answer: answer.error,
    unwrap,
    expect,
    match,
    match_deeper,
    repr,
    hash,
    str,
    pickle.dumps,
    copy.copy,
    lambda answer: answer == Err(NameTaken("taken")),
    lambda answer: Err(NameTaken("taken")) == answer,
    lambda answer: answer.unwrap_or(None),
    lambda answer: answer.ignore(),
    lambda answer: answer.map(str).error,
]
"""All that counts as looking at the error."""


@pytest.mark.parametrize("look", LOOKS)
async def test_an_err_that_was_looked_at_is_dropped_in_silence(place, look):
    """However it was looked at."""
    spool = await spool_with_one(place)
    answers = [await spool.enqueue(Mail.SEND, ANNE, b"", name=TAKEN)]
    look(answers[0])
    assert told_by(answers.clear) == []


@pytest.mark.parametrize(
    "look",
    [lambda _answer: None, lambda answer: isinstance(answer, Err), lambda answer: answer.map(str), bool],
)
async def test_an_err_that_nobody_looked_at_is_told_of(place, look):
    """Operation, spool and error, and what to do."""
    spool = await spool_with_one(place)
    answers = [await spool.enqueue(Mail.SEND, ANNE, b"", name=TAKEN)]
    look(answers[0])
    [told] = told_by(answers.clear)
    path = re.escape(str(place))
    assert re.fullmatch(
        rf"an Err was dropped unread: enqueue into send \(the spool {path}\): NameTaken: an entry named 'taken' .*; "
        r"match the result or call its unwrap\(\), or its ignore\(\) if the error does not matter",
        told,
    )


@pytest.mark.sample
async def test_it_is_told_of_the_line_that_awaited_it(place):
    """Not of a line of the library, and not of the one that dropped it."""
    spool = await spool_with_one(place)

    async def deeper() -> None:
        await spool.enqueue(Mail.SEND, ANNE, b"", name=TAKEN)

    with pytest.warns(UnreadErrWarning) as told:
        await deeper()
    [warning] = told
    assert warning.filename == __file__
    assert warning.lineno == deeper.__code__.co_firstlineno + 1


async def test_it_is_told_once_a_line(place):
    """Whatever entry it is about; another line is told of too, and the first again when the filters change."""
    spool = await spool_with_one(place)
    await put(spool, Mail.SEND, "other")

    async def answers() -> list[Any]:
        return [await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name)) for name in ("taken", "other")]

    for _ in range(2):
        found = await answers()
        found.append(await spool.enqueue(Mail.SEND, ANNE, b"", name=TAKEN))
        assert len(told_by(found.clear)) == 2


async def test_each_operation_that_a_task_is_started_on_is_told_of(place):
    """It is the event loop that awaits them, in one line for all."""
    spool = await spool_with_one(place)

    async def start() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(functools.partial(spool.enqueue, Mail.SEND, ANNE, b"", name=TAKEN))
            tasks.start_soon(functools.partial(spool.enqueue, Mail.RETRY, ANNE, b"", name=TAKEN))

    with warnings.catch_warnings(record=True) as told:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        await start()
        gc.collect()
    texts = [str(each.message) for each in told if each.category is UnreadErrWarning]
    assert {"into send" in text for text in texts} == {True, False}
    assert len(texts) == 2


async def test_a_line_that_is_told_of_once_is_remembered_once(tmp_path, monkeypatch):
    """Whatever number of entries it drops the errors of."""
    spool = await spool_with_one(tmp_path / "spool")
    monkeypatch.setattr(unread, "_told", {})
    with warnings.catch_warnings(record=True):
        warnings.resetwarnings()
        warnings.simplefilter("default")
        for number in range(20):
            (await spool.entry(Mail.SEND, str(number)).unwrap().stat()).map(str)
    [kept] = unread._told.values()
    assert len(kept) == 2  # the text, and the version of the filters


async def test_what_is_enqueued_together_is_told_of_at_once(place):
    """And not when garbage is collected next, in another test."""
    spool = await spool_with_one(place)
    gc.disable()
    try:
        with pytest.warns(UnreadErrWarning):
            await spool.enqueue_many(Mail.SEND, [(ANNE, b"")], names=[TAKEN])
    finally:
        gc.enable()


async def test_every_operation_that_can_fail_tells_of_its_err(tmp_path):
    """By hand, many at once, in a pool of several tasks, in a schedule, when a spool is opened."""
    spool = await spool_with_one(tmp_path / "spool")
    entry = spool.entry(Mail.SEND, "gone").unwrap()
    (tmp_path / "spool" / "send" / "broken").write_bytes(b"nonsense")

    async def iterate() -> object:
        async with spool.reader(Mail.SEND) as reader:
            return await reader.iter_available(lose, concurrency=3)

    async def lose(_metadata: object, data: Any) -> Release:
        (tmp_path / "spool" / "send" / ".checkout" / data.name).unlink()
        return Release()

    job = (await spool.entry(Mail.SEND, "taken").unwrap().checkout()).unwrap()
    operations: dict[str, Any] = {
        "naming of an entry": spool.entry(Mail.SEND, "a/b"),
        "look at entry gone of queue send": await entry.stat(),
        "check-out of entry gone of queue send": await entry.checkout(),
        "check-out of entry broken of queue send": await spool.entry(Mail.SEND, "broken").unwrap().checkout(),
        "reading of entry gone of queue send": await entry.direct.contents(),
        "direct save of entry gone of queue send": await entry.direct.save(BERT),
        "direct removal of entry gone of queue send": await entry.direct.remove(),
        "enqueue of one of 2 entries into send": await spool.enqueue_many(
            Mail.SEND, [(ANNE, b"")] * 2, names=[TAKEN, Use("new")]
        ),
        "enqueue into send": await spool.enqueue_if_absent(Mail.SEND, object(), b"", name=Use("odd")),
        "save of entry taken of queue send": await job.save(Mail.RETRY, object()),
        "schedule taken of queue send": await every(spool, Mail.SEND, 60, lambda _tick: (ANNE, b""), name="taken"),
        "opening": await Spool.load(tmp_path / "nowhere", spool.spoolable),
    }
    (await job.release()).unwrap()
    operations["iteration over queue send"] = await iterate()
    (tmp_path / "spool" / "send").rename(tmp_path / "aside")
    operations["expiry of queue send"] = await spool.expire(Mail.SEND, Retention(max_count=1))
    operations["listing"] = await spool.entries(Mail.SEND)
    expected = {f"an Err was dropped unread: {operation} (the spool" for operation in operations}
    told = told_by(operations.clear)
    assert {text[: text.index("(the spool") + len("(the spool")] for text in told} == expected


async def test_what_the_library_looks_at_for_itself_is_not_told_of(place):
    """An answer that says in another way that it failed is no `Err` that was dropped."""
    spool = await spool_with_one(place)

    async def handle(_metadata: object, _data: object) -> Remove:
        return Remove()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=TAKEN) == Ok(None)
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(handle, concurrency=2, prefetch=2)).unwrap()
        gc.collect()


@pytest.mark.program
def test_a_program_is_told_under_the_development_mode_and_not_otherwise(tmp_path):
    """As of a file that was not closed."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            import enum, sys, trio
            from trio_multispool import Spool, Spoolable, Use

            class Jobs(enum.Enum):
                TODO = "todo"

            async def main():
                spool = (await Spool.create(sys.argv[1], Spoolable(Jobs, str))).unwrap()
                for _ in range(3):
                    await spool.enqueue(Jobs.TODO, "once", name=Use("a"))

            trio.run(main)
        """)
    )
    line = program.read_text().splitlines().index('        await spool.enqueue(Jobs.TODO, "once", name=Use("a"))') + 1
    for number, (flags, times) in enumerate({(): 0, ("-X", "dev"): 1, ("-W", "always"): 2}.items()):
        ran = subprocess.run(
            [sys.executable, *flags, program, tmp_path / str(number)], check=True, capture_output=True, text=True
        )
        assert ran.stderr.count(f"program.py:{line}: UnreadErrWarning: an Err was dropped unread") == times
