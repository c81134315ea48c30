"""Threads share their syncs: a thread that comes during a sync waits, and all waiting threads share the next sync.

Theory. A sync covers what was written before it began. So a sync under way does not serve a thread that comes now; the
next one serves all threads that have come by then. The first of them to see that no sync is under way leads. It takes
the needs of all waiting threads, its own included, and tells each thread which of its needs failed. If a newcomer was
quicker to lead, and took the needs of a waiting thread along, that thread waits until the newcomer tells it. So no need
is ever dropped, and none is synced twice.

If a leader raises (it should not), all threads that it led raise too: none must believe that it was served.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

N = TypeVar("N")


class _Wanted(Generic[N]):
    """The needs of one thread, and their outcome."""

    def __init__(self, needs: Iterable[N]) -> None:
        self.needs = list(needs)
        self.outcome: dict[N, Exception] | BaseException | None = None
        """What failed, of all that was synced; or what the leader raised."""


class SyncQueue(Generic[N]):
    """Brings together threads that need syncs."""

    def __init__(self, sync: Callable[[Collection[N]], dict[N, Exception]]) -> None:
        """Begin with no needs; `sync` syncs distinct needs, and returns those that failed."""
        self._sync = sync
        self._changed = threading.Condition(threading.Lock())
        self._waiting: list[_Wanted[N]] = []
        self._under_way = False

    def sync(self, needs: Iterable[N]) -> dict[N, Exception]:
        """Return once all needs have been synced; return those that failed."""
        mine = _Wanted(needs)
        with self._changed:
            self._waiting.append(mine)
            while self._under_way and mine.outcome is None:
                _ = self._changed.wait()
            if mine.outcome is not None:
                return self._outcome(mine)
            led, self._waiting = self._waiting, []
            self._under_way = True
        outcome = self._lead(led)
        if isinstance(outcome, BaseException):
            raise outcome
        return self._outcome(mine)

    def _lead(self, led: list[_Wanted[N]]) -> dict[N, Exception] | BaseException:
        outcome: dict[N, Exception] | BaseException
        try:
            outcome = self._sync(list(dict.fromkeys(need for each in led for need in each.needs)))
        except BaseException as error:  # noqa: BLE001  # raised in each thread that was led
            outcome = error
        with self._changed:
            for each in led:
                each.outcome = outcome
            self._under_way = False
            self._changed.notify_all()
        return outcome

    def _outcome(self, mine: _Wanted[N]) -> dict[N, Exception]:
        if isinstance(mine.outcome, BaseException):
            message = "another thread, which was to sync for this one too, failed"
            raise RuntimeError(message) from mine.outcome  # noqa: TRY004  # no matter of types
        failures = mine.outcome or {}
        return {need: failures[need] for need in mine.needs if need in failures}
