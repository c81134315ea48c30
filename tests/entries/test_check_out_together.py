"""Check-outs by name that come at the same time share a hop, and each is its own caller's all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from helpers.gates import Gates, let_go_at_last
from helpers.spools import Mail, load_spool, put, quick_spool, state_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("after", [False, True], ids=["before its commit", "after its commit"])
async def test_a_check_out_that_finds_its_spool_closed_is_taken_back(after: bool, tmp_path: Path) -> None:
    """Its caller is told so, and gets nothing; the entry is in its queue, and nobody holds it."""
    gates, raised = Gates(), list[BaseException]()
    spool = await quick_spool(tmp_path / "spool", system_calls=gates)
    [entry] = await put(spool, Mail.SEND, "one")
    hold = gates.hold("move", "send/.checkout/one", after=after)

    async def check_out() -> None:
        try:
            _ = await entry.try_checkout()
        except anyio.ClosedResourceError as error:
            raised.append(error)

    with let_go_at_last(hold):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(check_out)
            await hold.reached()
            spool.close()
            hold.go()
    assert len(raised) == 1
    assert state_of(spool.location).names("send") == ["one"]
    async with await load_spool(spool.path) as other:
        [there] = (await other.entries(Mail.SEND)).unwrap()
        async with (await there.checkout()).unwrap() as job:
            (await job.remove()).unwrap()
    assert state_of(spool.location).faults() == []


async def test_many_check_outs_take_few_hops(tmp_path: Path) -> None:
    """Sixteen tasks: the first has a hop of its own, and the others, which came meanwhile, one together."""
    gates = Gates()
    names = [f"{number:02}" for number in range(16)]
    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool:
        entries = await put(spool, Mail.SEND, *names)
        hold = gates.hold("move", "send/.checkout/00")
        hops, batches = [], spool._session.check_outs
        lead = batches._lead
        jobs: list[Any] = []

        async def counting(*arguments: Any, **options: Any) -> Any:
            hops.append(arguments)
            return await lead(*arguments, **options)

        batches._lead = counting

        async def check_out(entry: Any) -> None:
            jobs.append((await entry.checkout()).unwrap())

        with let_go_at_last(hold):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(check_out, entries[0])
                await hold.reached()
                for entry in entries[1:]:
                    tasks.start_soon(check_out, entry)
                while len(batches._pending) < len(names) - 1:
                    await anyio.lowlevel.checkpoint()
                hold.go()
        assert len(hops) == 2
        assert sorted(job.name for job in jobs) == names
        for job in jobs:
            async with job:
                (await job.remove()).unwrap()
    assert state_of(spool.location).entries() == set()
