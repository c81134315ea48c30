"""Hooks that raise: what has happened does not look as if it had failed, and the log tells of it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.gates import breathe
from helpers.inside import waiters_of
from helpers.listening import HOOKS, Raising
from helpers.results import is_err
from helpers.spools import ANNE, Mail, put, quick_spool, state_of
from trio_multispool import (
    Remove,
    Retry,
    Use,
)
from trio_multispool.instrumentation import (
    Enqueued,
    Enqueueing,
    Instrumentation,
    Working,
)

if TYPE_CHECKING:
    from pathlib import Path

both_backends = pytest.mark.anyio


async def do_everything(spool: Any, tmp_path: Path) -> None:
    """Have every hook called."""
    await put(spool, Mail.SEND, "a", "b", "c", "junk", "x")
    assert len([answer.unwrap() for answer in await spool.enqueue_many(Mail.SEND, [(ANNE, b"")])]) == 1
    assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a")))
    (tmp_path / "spool" / "send" / "junk").write_bytes(b"{")
    (tmp_path / "spool" / ".registry" / "orphan").touch()

    async def handler(_envelope: object, _data: object) -> Remove:
        return Remove()

    async def failing(_envelope: object, _data: object) -> Remove:
        raise OSError

    retry = Retry(attempts=1, dead_letter=Mail.FAILED)
    async with (await spool.entry(Mail.SEND, "x").unwrap().checkout()).unwrap():
        pass
    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(handler, concurrency=2)).unwrap()
    await put(spool, Mail.RETRY, "y", "z")
    async with spool.reader(Mail.RETRY) as reader:
        (await reader.iter_available(failing, retry=retry)).unwrap()
    (await spool.recover()).unwrap()
    async with spool.reader(Mail.RETRY) as reader, anyio.create_task_group() as tasks:
        tasks.start_soon(reader.dequeue)
        while not waiters_of(spool):
            await breathe()
        tasks.cancel_scope.cancel()


@both_backends
@pytest.mark.parametrize("at", ["call", "beginning", "end"])
async def test_hooks_that_raise_change_nothing_and_are_logged_once_of_each_kind(tmp_path, caplog, at):
    """All operations succeed; the log names each hook once, however often it has raised."""
    caplog.set_level(logging.ERROR, logger="trio_multispool")
    async with await quick_spool(tmp_path / "spool", instrumentation=Raising(at)) as spool:
        await do_everything(spool, tmp_path)
    told = [
        record.__dict__["hook"] for record in caplog.records if record.__dict__["event"] == "multispool.hook_failed"
    ]
    assert sorted(told) == sorted([*HOOKS, "enqueueing", "working"])
    assert {name: len(found) for name, found in state_of(tmp_path / "spool").available.items()} == {
        "failed": 2,
        "retry": 0,
        "send": 0,
    }


@pytest.mark.sample
@both_backends
async def test_each_type_of_exception_is_logged_once(place, caplog):
    """A hook that begins to fail in another way is heard of again."""

    class Fickle(Instrumentation):
        raised = iter([ValueError, ValueError, KeyError, KeyError, ValueError])

        def on_enqueue(self, enqueued: Enqueued) -> None:
            raise next(self.raised)

    async with await quick_spool(place, instrumentation=Fickle()) as spool:
        await put(spool, Mail.SEND, *"abcde")
    assert [type(record.__dict__["error"]) for record in caplog.records] == [ValueError, KeyError]


@both_backends
async def test_a_context_manager_cannot_suppress_what_passes_through_it(place):
    """The block's exception leaves as the same object."""

    class Swallowing(Instrumentation):
        def enqueueing(self, enqueueing: Enqueueing) -> Any:
            return contextlib.suppress(BaseException)

        def working(self, working: Working) -> Any:
            return contextlib.suppress(BaseException)

    async with await quick_spool(place, instrumentation=Swallowing()) as spool:
        [entry] = await put(spool, Mail.SEND, "a")
        error = KeyError("a")
        with pytest.raises(KeyError) as caught:
            async with (await entry.checkout()).unwrap():
                raise error
        assert caught.value is error
        with pytest.raises(TypeError):
            await spool.enqueue(Mail.SEND, ANNE, b"", durability="power")


@both_backends
async def test_the_base_class_hears_everything_and_does_nothing(tmp_path):
    """It is complete: a subclass overrides what it wants."""
    async with await quick_spool(tmp_path / "spool", instrumentation=Instrumentation()) as spool:
        await do_everything(spool, tmp_path)
