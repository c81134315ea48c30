"""A spool in an event loop that is not its own, and handles that are pickled: what to do instead is said."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import anyio
import pytest

from helpers.spools import ANNE, MAIL, Mail, names_in, put, quick_spool, state_of
from trio_multispool import Ok, Use
from trio_multispool.testing import memory_spool

BACKENDS = ("asyncio", "trio")

TOLD = r"^the spool .* is used in another event loop than .*; open it there too, by `Spool\.load`"


async def in_reader(spool: Any) -> None:
    """Read a queue."""
    async with spool.reader(Mail.SEND) as reader:
        await reader.dequeue()


USES = {
    "enqueue": lambda spool, _job: spool.enqueue(Mail.SEND, ANNE, b""),
    "enqueue_many": lambda spool, _job: spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 3),
    "entries": lambda spool, _job: spool.entries(Mail.SEND),
    "checkout": lambda spool, _job: spool.entry(Mail.SEND, "a").unwrap().checkout(),
    "reserve_name": lambda spool, _job: spool.reserve_name(),
    "recover": lambda spool, _job: spool.recover(),
    "save": lambda _spool, job: job.save(Mail.RETRY),
    "release": lambda _spool, job: job.release(),
    "load": lambda _spool, job: job.data.load(),
    "reader": lambda spool, _job: in_reader(spool),
}


@pytest.mark.sample
@pytest.mark.anyio
@pytest.mark.parametrize("other", BACKENDS)
@pytest.mark.parametrize("use", USES)
async def test_a_spool_is_refused_in_another_loop_and_goes_on_in_its_own(use, other, place):
    """While its own loop runs: the message says what to do, and nothing has happened."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "a", "b")
        async with (await spool.entry(Mail.SEND, "b").unwrap().checkout()).unwrap() as job:
            before = state_of(place)

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match=TOLD):
                    anyio.run(USES[use], spool, job, backend=other)

            await anyio.to_thread.run_sync(elsewhere)
            assert state_of(place) == before
            assert (await job.data.load()).unwrap() == b"Hello"
            assert await job.save(Mail.RETRY) == Ok(None)
        assert await names_in(spool, Mail.SEND) == ["a"]


@pytest.mark.parametrize("other", BACKENDS)
@pytest.mark.parametrize("own", BACKENDS)
@pytest.mark.parametrize("kind", ["directory", "memory"])
def test_when_its_loop_has_ended_another_of_the_same_library_may_take_over(kind, own, other, tmp_path):
    """What belongs to asyncio is refused on Trio, and the other way round."""
    made = memory_spool(MAIL)  # in no loop

    async def make() -> Any:
        spool = await quick_spool(tmp_path / "spool") if kind == "directory" else made
        await put(spool, Mail.SEND, "a")
        return spool

    spool = anyio.run(make, backend=own)
    if own == other:
        assert anyio.run(names_in, spool, Mail.SEND, backend=other) == ["a"]
    else:
        with pytest.raises(RuntimeError, match=TOLD):
            anyio.run(names_in, spool, Mail.SEND, backend=other)
    spool.close()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["directory", "memory"])
async def test_nothing_that_belongs_to_an_open_spool_can_be_pickled(kind, tmp_path):
    """The message says what to send instead, for each handle; and the handles go on working."""
    opened = await quick_spool(tmp_path / "spool") if kind == "directory" else memory_spool(MAIL)
    async with opened as spool, spool.reader(Mail.SEND) as reader, spool.channel(Mail.FAILED) as (send, receive):
        entry, _ = await put(spool, Mail.SEND, "a", "b")
        await send.send((ANNE, b""))
        async with (
            (await entry.checkout()).unwrap() as job,
            (await spool.reserve_name()).unwrap() as reserved,
            await receive.receive() as received,
        ):
            of_a_spool = [spool, entry, entry.direct, job, job.data, reader, reader.available(), aiter(reader)]
            for handle in [*of_a_spool, send, receive, received, reserved, Use(reserved), Ok(entry), [entry]]:
                for take in (pickle.dumps, copy.deepcopy):
                    with pytest.raises(TypeError, match=r"cannot be pickled or copied: .* use `Spool\.load`"):
                        take(handle)
            assert (await job.data.load()).unwrap() == b"Hello"
        assert await names_in(spool, Mail.SEND) == ["a", "b"]
