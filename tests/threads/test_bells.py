"""What a thread ends a task's wait with on Trio, a descriptor: none may be left, and one is never rung too early."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from helpers.inside import idle_bells, open_descriptors
from trio_multispool import Ok
from trio_multispool.threads import loop
from trio_multispool.threads.offload import Offload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.anyio


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open no file more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filler: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
        with contextlib.suppress(OSError):
            while True:
                filler.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filler:
            os.close(fd)


async def test_where_no_descriptor_is_left_a_hop_ends_all_the_same() -> None:
    """It takes a step of the event loop more, and keeps none open."""
    offload = Offload(None)
    assert await offload.run("warm", lambda _before_commit: 0) == Ok(0)  # its thread is there
    loop._bells.clear()
    before = open_descriptors()
    with no_descriptor_left():
        with pytest.raises(OSError, match="Too many open files"):
            os.eventfd(0)
        for number in range(3):
            assert await offload.run("read", lambda _before_commit, number=number: number) == Ok(number)
        assert await offload.finish("release", lambda: "released") == Ok("released")
    assert open_descriptors() == before


async def test_where_the_system_has_no_bells_a_hop_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    for name in ("eventfd", "eventfd_read", "eventfd_write"):
        monkeypatch.delattr(os, name)
    offload = Offload(None)
    assert await offload.run("read", lambda _before_commit: 1) == Ok(1)
    assert await offload.finish("release", lambda: "released") == Ok("released")


async def test_the_bell_of_a_cancelled_hop_rings_for_no_other() -> None:
    """Its thread is still at work, and rings later: another hop would end before its own thread."""
    offload = Offload(None)
    ended: list[str] = []

    async def wait_in_thread(name: str, scope: anyio.CancelScope) -> None:
        def work(before_commit: Callable[[], None]) -> str:
            begun[name].set()
            assert may_end[name].wait(60)
            before_commit()
            return name

        with scope:
            assert await offload.run("read", work, interruptible=True) == Ok(name)
        ended.append(name)

    for _ in range(3):
        begun, may_end = ({name: threading.Event() for name in ("cancelled", "other")} for _ in range(2))
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            try:
                for name, its_scope in (("cancelled", scope), ("other", anyio.CancelScope())):
                    tasks.start_soon(wait_in_thread, name, its_scope)
                    await anyio.to_thread.run_sync(begun[name].wait)
                    scope.cancel()
                    await anyio.wait_all_tasks_blocked()
                may_end["cancelled"].set()
                while not ended:
                    await anyio.lowlevel.checkpoint()
                await anyio.wait_all_tasks_blocked()
                assert ended == ["cancelled"]
            finally:
                for event in may_end.values():
                    event.set()
        assert ended == ["cancelled", "other"]
        assert scope.cancelled_caught
        assert select.select([int(fd) for fd in idle_bells()], [], [], 0)[0] == [], "one has rung for nobody"
        ended.clear()
