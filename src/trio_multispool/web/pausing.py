"""Pausing a queue: the one place of the dashboard where `spool.pause` and `spool.resume` come in.

TODO(pause): these operations are being built. When they are there, `AVAILABLE` becomes true, `paused` asks the store,
and the two functions call them; the pages and their buttons are ready, and are shown as soon as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trio_multispool.looks.seen import QueueLook
    from trio_multispool.web.spools import AnySpool

AVAILABLE: Final[bool] = False
"""Whether queues can be paused."""


def paused(_seen: QueueLook) -> bool:
    """Tell whether a queue is paused."""
    return False


async def pause(spool: AnySpool, queue: str) -> None:
    """Pause a queue until it is resumed."""
    raise NotImplementedError(f"{spool}: {queue} cannot be paused yet")


async def resume(spool: AnySpool, queue: str) -> None:
    """Let a queue go on."""
    raise NotImplementedError(f"{spool}: {queue} cannot be resumed yet")
