"""Pause queues, and resume them; see `Spool.pause`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio_multispool.model.pauses import Pause, in_force, new_pause
from trio_multispool.model.times import length_of

if TYPE_CHECKING:
    import datetime

    from trio_multispool.errors import Trouble
    from trio_multispool.model.results import Result
    from trio_multispool.model.types import Q
    from trio_multispool.session.session import Session
    from trio_multispool.threads.transaction import BeforeCommit


async def pause(
    session: Session[Any, Any, Any, Any], queue: str, duration: float | datetime.timedelta | None, reason: object
) -> Result[Pause, Trouble]:
    """Pause a queue."""
    length = None if duration is None else length_of(duration, "duration")
    if length is not None and not length:
        raise ValueError(f"duration must be above 0, not {duration!r}")
    wanted = new_pause(session.now(), length, reason)

    def work(before_commit: BeforeCommit) -> Pause:
        before_commit()
        session.storage.pause(queue, wanted)
        session.pauses.forget()
        return wanted

    return await session.run(f"pause of queue {queue}", work)


async def resume(session: Session[Any, Any, Any, Any], queue: str) -> Result[None, Trouble]:
    """End a pause."""

    def work(before_commit: BeforeCommit) -> None:
        before_commit()
        session.storage.resume(queue)
        session.pauses.forget()

    return await session.run(f"resumption of queue {queue}", work)


async def pauses(session: Session[Q, Any, Any, Any]) -> Result[dict[Q, Pause], Trouble]:
    """Return the pauses of the queues that this program knows."""

    def look(_before_commit: BeforeCommit) -> dict[Q, Pause]:
        now, known = session.now(), {queue.value: queue for queue in session.spoolable.queues}
        found = in_force(session.storage.pauses(), now).items()
        return {known[name]: each for name, each in found if name in known}

    return await session.run("look for pauses", look)
