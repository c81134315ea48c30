"""Problems over time: a problem starts when several checks in a row have found it, and ends when it is gone.

`Alerts` is a pure state machine; `Watching` drives it by AnyIO's clock. Nothing runs in the background: asking for an
event makes a check if no event is waiting. So there is nothing to stop. Cancelling the wait loses no event: a check
that was cut short does not count.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, TypeAlias, final

import anyio
import anyio.lowlevel
import msgspec

from trio_multispool.monitor.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable


@final
class Start(msgspec.Struct, frozen=True):
    """Enough checks in a row have found a problem."""

    problem: Problem


@final
class End(msgspec.Struct, frozen=True):
    """A problem that had started is gone."""

    problem: Problem


Event: TypeAlias = Start | End
"""What a watch yields."""


@final
class Alerts:
    """Which problems have started, and which may start soon."""

    def __init__(self, alert_after_cycles: int) -> None:
        self._after = alert_after_cycles
        self._cycles: dict[Problem, int] = {}

    @property
    def started(self) -> list[Problem]:
        """The problems that have started and not ended."""
        return [problem for problem, cycles in self._cycles.items() if cycles >= self._after]

    def see(self, problems: Iterable[Problem]) -> list[Event]:
        """Take in the outcome of one check. Return the problems that have ended, then those that start."""
        current = dict.fromkeys(problems)
        ended: list[Event] = [End(problem) for problem in self.started if problem not in current]
        self._cycles = {problem: self._cycles.get(problem, 0) + 1 for problem in current}
        return [*ended, *(Start(problem) for problem, cycles in self._cycles.items() if cycles == self._after)]


@final
class Watching:
    """Yields events for as long as it is asked: `async with monitor.watch() as events: async for event in events`."""

    def __init__(
        self, check: Callable[[], Awaitable[Iterable[Problem]]], check_every: float, alert_after_cycles: int
    ) -> None:
        self._check = check
        self._check_every = check_every
        self._alerts = Alerts(alert_after_cycles)
        self._events: collections.deque[Event] = collections.deque()
        self._next: float | None = None
        self._closed = False

    @property
    def problems(self) -> list[Problem]:
        """The problems that have started and not ended."""
        return self._alerts.started

    def __repr__(self) -> str:
        return f"<Watching every {self._check_every:g}s, {len(self.problems)} problems{', closed' * self._closed}>"

    async def __aenter__(self) -> Watching:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        """End: no further event is yielded."""
        self._closed = True

    def __aiter__(self) -> Watching:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event. Raises the `SpoolError` of a check that fails; asking again is fine."""
        await anyio.lowlevel.checkpoint()
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            await self._cycle()
        return self._events.popleft()

    async def _cycle(self) -> None:
        if self._next is not None:
            await anyio.sleep_until(self._next)
        began = anyio.current_time()
        try:
            problems = await self._check()
        finally:
            ended = anyio.current_time()
            # However long a check takes, checks take at most half of the time.
            self._next = max(began + self._check_every, ended + (ended - began))
        self._events.extend(self._alerts.see(problems))
