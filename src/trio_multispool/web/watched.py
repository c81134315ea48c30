"""`Watched`: one spool that is looked at, for all its viewers together.

A look is that of `top`: it locks nothing and writes nothing. The monitor, which locks what it suspects for a moment,
looks more rarely, and only while somebody looks here. What a page shows is found out once for all who look at it.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final, NamedTuple, final

from trio_multispool.clock import stopwatch, wall_clock
from trio_multispool.errors import NotASpool, SpoolError
from trio_multispool.looks.opening import looks_at
from trio_multispool.looks.problems import MOST_ENTRIES, of_monitor
from trio_multispool.looks.state import Model, advance, changes, checked, pause_after
from trio_multispool.monitor import Limits, Monitor
from trio_multispool.session.stores import location_of
from trio_multispool.threads.offload import Offload
from trio_multispool.web import spools
from trio_multispool.web.flows import Flow
from trio_multispool.web.reading import Reader
from trio_multispool.web.shared import Body, Shared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from trio_multispool.looks.seen import Look
    from trio_multispool.model.types import StrPath, T
    from trio_multispool.monitor import Problem as Found

MOST_PAGES: Final = 64
"""How many pages are kept, so that all who look at one of them share it."""


class Snapshot(NamedTuple):
    """A spool as it was seen last."""

    at: float
    model: Model
    flows: dict[str, Flow]
    found: dict[str, Found]
    """What the monitor found, by identity."""
    trouble: str | None
    """Why it cannot be looked at (any more); then the rest is as it was seen last."""
    checked: bool | None
    """Whether the monitor has looked; `None`: it does not, because there are too many entries."""


@final
class Watched:
    """One spool, its viewers, and what is known."""

    def __init__(
        self, location: StrPath, *, every: float, check_every: float, share: float, hidden: Collection[str]
    ) -> None:
        """Take its location, how often to look and to check at most, and which fields nobody is shown.

        Looks take at most this share of the time, and so does what all pages together ask besides.
        """
        self.location: Final = location_of(location)
        self._opened: Final = str(location)
        self.reader: Final = Reader(self._opened, hidden)
        self.looks: Final = Shared(self._look, every, lambda: share)
        self._every = every
        self._share = share
        self._check_every = check_every
        self._offload = Offload(None)
        self._looker = looks_at(self._opened)
        self._model = Model()
        self._flows: dict[str, Flow] = {}
        self._found: dict[str, Found] = {}
        self._checked: bool | None = False
        self._looking = False
        self._closed = False
        self._elapsed = stopwatch()
        self._check_at = 0.0
        self._pages: collections.OrderedDict[object, Shared[Body]] = collections.OrderedDict()

    @property
    def opened(self) -> str:
        """Where it is, to open it: as it was given, maybe with a password."""
        return self._opened

    def close(self) -> None:
        """End the look that is under way, and free what is open. Idempotent."""
        self._closed = True
        self._looker.stop()
        if not self._looking:  # else it is closed when the look has ended
            self._looker.close()
        self.reader.close()

    async def ask(self, what: str, question: Callable[[], T]) -> T:
        """Ask the store something in a thread; raises a `SpoolError`."""
        answer = await self._offload.run(what, lambda _before_commit: question())
        return answer.unwrap()

    def page(self, key: object, find: Callable[[], Awaitable[Body]]) -> Shared[Body]:
        """Return what all share who look at one page."""
        if key not in self._pages:
            self._pages[key] = Shared(find, self._every, self._share_of_a_page)
            while len(self._pages) > MOST_PAGES:
                _ = self._pages.popitem(last=False)
        self._pages.move_to_end(key)
        return self._pages[key]

    def _share_of_a_page(self) -> float:
        return self._share / max(1, sum(page.viewers > 0 for page in self._pages.values()))

    def forget(self) -> None:
        """Look anew the next time that somebody asks: something was done."""
        self.looks.forget()
        for page in self._pages.values():
            page.forget()

    async def _look(self) -> Snapshot:
        self._looking = True
        try:
            look = await self.ask("a look", self._looker.look)
        except SpoolError as error:
            return self._snapshot(_told(error))
        finally:
            self._looking = False
            if self._closed:
                self._looker.close()
        self._advance(look)
        if self._model.look is not None and self._check_every and len(self._model.lines):
            await self._check_if_due()
        return self._snapshot(None)

    def _snapshot(self, trouble: str | None) -> Snapshot:
        return Snapshot(wall_clock(), self._model, dict(self._flows), dict(self._found), trouble, self._checked)

    def _advance(self, look: Look) -> None:
        before, self._model = self._model, advance(self._model, look)
        if before.look is None or before.look.identity != look.identity:
            self._flows = {seen.queue: Flow() for seen in look.queues}
            return
        seconds = look.instant - before.look.instant
        flows = {seen.queue: self._flows.get(seen.queue) or Flow() for seen in look.queues}
        for seen in look.queues:
            if seen.queue in before.lines:
                flows[seen.queue].add(seconds, *changes(before.lines[seen.queue].seen, seen))
        self._flows = flows

    async def _check_if_due(self) -> None:
        if self._elapsed() < self._check_at:
            return
        look, began = self._model.look, self._elapsed()
        queues = () if look is None else look.queues
        if sum(seen.total for seen in queues) > MOST_ENTRIES:
            self._checked = None
        else:
            try:
                async with await spools.to_look(self._opened, [seen.queue for seen in queues]) as spool:
                    found = (await Monitor(spool, Limits()).run_once()).unwrap()
            except SpoolError:  # the look tells of it too
                pass
            else:
                self._checked = True
                self._found = {of_monitor(each).key: each for each in found}
                told = {problem.key: problem for problem in map(of_monitor, found)}
                self._model = checked(self._model, told, wall_clock())
        self._check_at = self._elapsed() + pause_after(self._elapsed() - began, self._check_every, self._share)


def _told(error: SpoolError) -> str:
    """Say why a spool cannot be looked at (any more)."""
    return f"the spool is gone: {error.reason.partition(';')[0]}" if isinstance(error, NotASpool) else str(error)
