"""Every public operation that goes to the disk, ready to be cancelled: how to prepare it, and where to stop it."""

from __future__ import annotations

import dataclasses
import datetime
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from helpers.spools import BERT, MAIL, Mail, is_url, make_spool, put, state_of
from trio_multispool import Err, Ok, Use
from trio_multispool.testing import strict_order

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from helpers.spools import Location, State
    from trio_multispool import Result, Spool, Spoolable


DUE = datetime.datetime(2096, 1, 1, tzinfo=datetime.UTC)
"""When entries that wait are due."""


def ordered() -> Spoolable[Any, Any, Any, None]:
    """Return a spoolable whose generated names are the same in every spool, so that two spools can be compared."""
    return strict_order(MAIL)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation."""

    name: str
    prepare: Callable[[Spool[Any, Any, Any, Any], AsyncExitStack], Awaitable[Callable[[], Awaitable[Result[Any, Any]]]]]
    before: str
    """A system call that it makes in its thread before its commit."""
    commit: str | None = None
    """The system call that commits it, if it changes anything."""
    outcome: str = "reads"
    """What asyncio's own cancellation after the commit does: the effect "stands", or is "undone"."""
    withdraws: bool = True
    """Whether asyncio's own cancellation before the commit prevents it."""

    def __str__(self) -> str:
        """Name the test's case."""
        return self.name


async def _enqueue(spool: Any, _stack: Any) -> Any:
    return lambda: spool.enqueue(Mail.SEND, BERT, b"new", name=Use("new"))


async def _enqueue_to_wait(spool: Any, _stack: Any) -> Any:
    return lambda: spool.enqueue(Mail.SEND, BERT, b"new", name=Use("new"), not_before=DUE)


async def _enqueue_to_be_remembered(spool: Any, _stack: Any) -> Any:
    return lambda: spool.enqueue(Mail.SEND, BERT, b"new", name=Use("new", remember=3600))


async def _enqueue_if_absent(spool: Any, _stack: Any) -> Any:
    return lambda: spool.enqueue_if_absent(Mail.SEND, BERT, b"new", name=Use("new"))


def _remembered(method: str) -> Any:
    async def prepare(spool: Any, stack: Any) -> Any:
        entry = (await spool.enqueue(Mail.SEND, BERT, b"new", name=Use("new", remember=3600))).unwrap()
        if method == "direct":
            return entry.direct.remove
        return (await stack.enter_async_context((await entry.checkout()).unwrap())).remove

    return prepare


async def _limited(spool: Any, stack: Any) -> Any:
    await put(spool, Mail.SEND, "one")
    reader = spool.reader(Mail.SEND, limit_by=lambda envelope: envelope.recipient, limit=1)
    return (await stack.enter_async_context(reader)).dequeue


async def _enqueue_generated(spool: Any, _stack: Any) -> Any:
    return lambda: spool.enqueue(Mail.SEND, BERT, b"new")


async def _enqueue_reserved(spool: Any, stack: Any) -> Any:
    reserved = await stack.enter_async_context((await spool.reserve_name()).unwrap())
    return lambda: spool.enqueue(Mail.SEND, BERT, b"new", name=Use(reserved))


async def _reserve_name(spool: Any, stack: Any) -> Any:
    async def reserve() -> Any:
        answer = await spool.reserve_name()
        if not isinstance(answer, Err):
            await stack.enter_async_context(answer.unwrap())
        return answer

    return reserve


async def _cancel(spool: Any, _stack: Any) -> Any:
    await put(spool, Mail.SEND, "one")
    return lambda: spool.cancel("one")


async def _cancel_in_hand(spool: Any, stack: Any) -> Any:
    [entry] = await put(spool, Mail.SEND, "one")
    stack.push_async_callback((await entry.checkout()).unwrap().release)  # no block, which would be cancelled
    return lambda: spool.cancel("one")


async def _give_back(job: Any) -> None:
    async with job:
        pass


def _entry(method: str) -> Any:
    async def prepare(spool: Any, stack: Any) -> Any:
        entry = (await put(spool, Mail.SEND, "one"))[0]

        async def run() -> Any:
            answer = await getattr(entry, method)()
            if method != "stat" and not isinstance(answer, Err):
                stack.push_async_callback(_give_back, answer.unwrap())  # this may run in a task of its own
            return answer

        return run

    return prepare


def _direct(method: str, *arguments: Any) -> Any:
    async def prepare(spool: Any, _stack: Any) -> Any:
        entry = (await put(spool, Mail.SEND, "one"))[0]
        target = entry.direct.data_file if method.startswith("data_") else entry.direct
        return lambda: getattr(target, method.removeprefix("data_"))(*arguments)

    return prepare


def _job(method: str, *arguments: Any, **named: Any) -> Any:
    async def prepare(spool: Any, stack: Any) -> Any:
        entry = (await put(spool, Mail.SEND, "one"))[0]
        job = await stack.enter_async_context((await entry.checkout()).unwrap())
        target = job.data if method.startswith("data_") else job
        return lambda: getattr(target, method.removeprefix("data_"))(*arguments, **named)

    return prepare


def _reader(method: str) -> Any:
    async def prepare(spool: Any, stack: Any) -> Any:
        await put(spool, Mail.SEND, "one")
        reader = await stack.enter_async_context(spool.reader(Mail.SEND))
        return getattr(reader, method)

    return prepare


def _spool(method: str, *arguments: Any, adopted: bool = True) -> Any:
    async def prepare(spool: Any, stack: Any) -> Any:
        one, two = await put(spool, Mail.SEND, "one", "two")
        del one
        await stack.enter_async_context((await two.checkout()).unwrap())
        if not adopted and is_url(spool.location):
            pytest.skip("every user of such a spool takes locks: there is nothing to adopt")
        if not adopted:
            (spool.path / ".spool.json").unlink()
        return lambda: getattr(spool, method)(*arguments)

    return prepare


OPERATIONS = [
    Operation("enqueue", _enqueue, "write", "move", "stands"),
    Operation("enqueue-to-wait", _enqueue_to_wait, "write", "move", "stands"),
    Operation("enqueue-to-be-remembered", _enqueue_to_be_remembered, "write", "move", "stands"),
    Operation("enqueue_if_absent", _enqueue_if_absent, "write", "move", "stands"),
    Operation("enqueue-generated", _enqueue_generated, "write", "move", "stands"),
    Operation("enqueue-reserved", _enqueue_reserved, "write", "move", "stands"),
    Operation("reserve_name", _reserve_name, "lock", "lock", "undone"),
    Operation("entries", _spool("entries", Mail.SEND), "regular_files"),
    Operation("checkouts_unsafe", _spool("checkouts_unsafe", Mail.SEND), "read"),
    Operation("recover", _spool("recover"), "directories"),
    Operation("adopt", _spool("adopt", adopted=False), "write", "move", "stands", withdraws=False),
    Operation("entry.stat", _entry("stat"), "stat"),
    Operation("entry.checkout", _entry("checkout"), "read", "move", "undone"),
    Operation("entry.try_checkout", _entry("try_checkout"), "read", "move", "undone"),
    Operation("direct.contents", _direct("contents"), "read"),
    Operation("direct.save", _direct("save", BERT), "write", "exchange", "stands"),
    Operation("direct.remove", _direct("remove"), "lock", "unlink", "stands"),
    Operation("direct.data_file.load", _direct("data_load"), "read"),
    Operation("direct.data_file.stat", _direct("data_stat"), "stat"),
    Operation("direct.data_file.save", _direct("data_save", b"changed"), "write", "exchange", "stands"),
    Operation("job.save", _job("save", Mail.RETRY, BERT), "write", "exchange", "stands"),
    Operation("job.save-unchanged", _job("save", Mail.RETRY), "sync", "move", "stands"),
    Operation("job.save-to-wait", _job("save", Mail.RETRY, BERT, not_before=DUE), "write", "exchange", "stands"),
    Operation("job.remove", _job("remove"), "sync", "unlink", "stands"),
    Operation("job.remove-remembered", _remembered("job"), "set_modified", "unlink", "stands"),
    Operation("direct.remove-remembered", _remembered("direct"), "set_modified", "unlink", "stands"),
    Operation("job.release", _job("release"), "move", "move", "stands", withdraws=False),
    Operation("cancel", _cancel, "read", "unlink", "stands"),
    Operation("cancel-in-hand", _cancel_in_hand, "stat", "write", "stands"),
    Operation("job.data.load", _job("data_load"), "read"),
    Operation("job.data.stat", _job("data_stat"), "stat"),
    Operation("job.data.save", _job("data_save", b"changed"), "write", "exchange", "stands"),
    Operation("reader.dequeue", _reader("dequeue"), "read", "move", "undone"),
    Operation("reader.dequeue-limited", _limited, "lock_byte", "move", "undone"),
    Operation("reader.dequeue_available", _reader("dequeue_available"), "read", "move", "undone"),
]

CHANGING = [operation for operation in OPERATIONS if operation.commit is not None]


async def states(operation: Operation, place: Location) -> tuple[State, State]:
    """Run the operation undisturbed in a spool of its own; return what was on disk before and after."""
    async with await make_spool(place, ordered()) as spool, AsyncExitStack() as stack:
        run = await operation.prepare(spool, stack)
        before = state_of(place)
        assert isinstance(await run(), Ok)
        return before, state_of(place)
