"""Pausing a queue from a page, and resuming it: what would be done, in words, and doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trio_multispool.looks.pauses import until
from trio_multispool.model.pauses import in_force, new_pause
from trio_multispool.web import spools

if TYPE_CHECKING:
    from trio_multispool.looks.seen import AnyStorage
    from trio_multispool.web.spools import AnySpool

LENGTHS: Final = {"": None, "10m": 600.0, "1h": 3600.0, "8h": 28_800.0, "1d": 86_400.0}
"""For how long a queue can be paused from a page, in seconds; `None`: until somebody resumes it."""


def would_pause(storage: AnyStorage, queue: str, length: float | None, reason: str) -> str:
    """Say what a pause would do."""
    now = storage.now()
    told = f"readers would take nothing new from it, {until(new_pause(now, length, reason), now)}"
    before = in_force(storage.pauses(), now).get(queue)
    return told if before is None else f"{told} (it is paused {until(before, now)})"


def would_resume(storage: AnyStorage, queue: str) -> str | None:
    """Say what its end would do; `None`: there is no pause."""
    now = storage.now()
    before = in_force(storage.pauses(), now).get(queue)
    return None if before is None else f"readers would go on within a second (it is paused {until(before, now)})"


async def pause(spool: AnySpool, queue: str, length: float | None, reason: str) -> str:
    """Pause a queue; return what was done. Raises a `SpoolError`."""
    paused = (await spool.pause(spools.member(spool, queue), length, reason=reason)).unwrap()
    return f"is paused {until(paused, paused.since)}"


async def resume(spool: AnySpool, queue: str) -> str:
    """Let a queue go on; return what was done. Raises a `SpoolError`."""
    (await spool.resume(spools.member(spool, queue))).unwrap()
    return "goes on"
