"""Threads that share their syncs: whoever comes while a sync is under way waits, and all who wait share the next.

Theory. A sync covers what was written before it began, so one that is under way is of no use to a thread that comes
now; but the next one serves all that have come by then. The first of them to see that nothing is under way leads: it
takes everything that is wanted by then, its own included, and tells each what failed of its own. A thread that was
waiting and finds its wants taken along by a newcomer, who was quicker to lead, goes on waiting: whoever took them
tells it. So no want is ever dropped, and none is synced twice.

A leader that raises (it should not) leaves nobody in the belief that it was served: all whom it led raise too.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

N = TypeVar("N")


class _Wanted(Generic[N]):
    """What one thread wants synced, and what came of it."""

    def __init__(self, needs: Iterable[N]) -> None:
        self.needs = list(needs)
        self.failures: dict[N, Exception] | None = None
        self.raised: BaseException | None = None

    @property
    def served(self) -> bool:
        return self.failures is not None or self.raised is not None


class SyncQueue(Generic[N]):
    """Brings threads together that want to sync."""

    def __init__(self, sync: Callable[[Collection[N]], dict[N, Exception]]) -> None:
        """Begin with nothing wanted; `sync` syncs different things, and returns those that failed."""
        self._sync = sync
        self._changed = threading.Condition(threading.Lock())
        self._waiting: list[_Wanted[N]] = []
        self._under_way = False

    def sync(self, needs: Iterable[N]) -> dict[N, Exception]:
        """Return when all of them have been synced, with those that failed."""
        mine = _Wanted(needs)
        with self._changed:
            self._waiting.append(mine)
            while self._under_way and not mine.served:
                _ = self._changed.wait()
            if mine.served:
                return self._outcome(mine)
            led, self._waiting = self._waiting, []
            self._under_way = True
        self._lead(led)
        if mine.raised is not None:
            raise mine.raised
        return self._outcome(mine)

    def _lead(self, led: list[_Wanted[N]]) -> None:
        failures: dict[N, Exception] = {}
        raised: BaseException | None = None
        try:
            failures = self._sync(list(dict.fromkeys(need for each in led for need in each.needs)))
        except BaseException as error:  # noqa: BLE001  # raised by each of those who were led
            raised = error
        with self._changed:
            for each in led:
                if raised is None:
                    each.failures = {need: failures[need] for need in each.needs if need in failures}
                else:
                    each.raised = raised
            self._under_way = False
            self._changed.notify_all()

    def _outcome(self, mine: _Wanted[N]) -> dict[N, Exception]:
        if mine.raised is not None:
            message = "another thread, which was to sync for this one too, failed"
            raise RuntimeError(message) from mine.raised
        return mine.failures or {}
