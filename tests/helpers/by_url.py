"""A spool in memory that the command finds by a URL, where it runs in the process of the test."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from trio_multispool.cli import checking, spools
from trio_multispool.errors import NotASpool
from trio_multispool.looks import asking
from trio_multispool.session import stores
from trio_multispool.session.stores import Opened
from trio_multispool.spool import spool
from trio_multispool.storage.memory.contents import Contents
from trio_multispool.storage.memory.store import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from trio_multispool.storage.protocol import Storage

IN_MEMORY = "memory://tests"


class NotRecovered(MemoryStorage):  # type: ignore[misc]
    """A store in memory that recovers nothing when it is opened."""

    def recover(self, queue: str | None = None, *, insist: bool = True) -> list[Any]:
        """Recover if somebody asks for it."""
        return super().recover(queue, insist=insist) if hasattr(self, "recovered_at_first") else []


def keep_in_memory(patch: pytest.MonkeyPatch) -> str:
    """Have the command find a store in memory by a URL, which is returned. It is not there yet."""
    contents = Contents(time.time)

    def opening(queues: Any = (), *, recover: bool = True, **_how: object) -> Opened:
        opened = (MemoryStorage if recover else NotRecovered)(contents, queues, IN_MEMORY)
        return Opened(opened, opened.recovered_at_first)

    def looking() -> Storage:
        if not contents.queues:
            raise NotASpool(IN_MEMORY, "it is not there")
        return NotRecovered(contents, (), IN_MEMORY)

    ours: dict[str, Any] = {
        "open_store": opening,
        "open_store_unsafe": lambda: Opened(looking(), []),
        "look_at_store": looking,
    }
    for module in (stores, spools, checking, spool, asking):
        for name, function in ours.items():
            if hasattr(module, name):
                patch.setattr(module, name, _either(function, getattr(module, name)))
    return IN_MEMORY


def _either(ours: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does one or the other, by the location."""

    def open_it(location: Any, *arguments: Any, **how: Any) -> Any:
        return ours(*arguments, **how) if location == IN_MEMORY else theirs(location, *arguments, **how)

    return open_it
