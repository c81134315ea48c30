"""One open spool: the state that the parts of the directory store share."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Final

from trio_multispool.clock import wall_clock
from trio_multispool.errors import SpoolError, UnsupportedFormat
from trio_multispool.events import Event, log
from trio_multispool.storage.directory.disk.format import read_format
from trio_multispool.storage.directory.syncs.plan import Syncs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from trio_multispool.model.lifecycle import Place
    from trio_multispool.model.policies import Durability
    from trio_multispool.storage.directory.disk.layout import Denied, Layout
    from trio_multispool.storage.directory.syncs.plan import SyncPlan

_LOG: Final = logging.getLogger("trio_multispool.storage")

_MOST_TOLD: Final = 1000
"""Remember of so many files that they cannot be read; then begin again."""


class Context:
    """An open spool directory, its level of durability, and whether its users are all known to take locks."""

    def __init__(
        self, layout: Layout, level: Durability, *, adopted: bool, now: Callable[[], float] = wall_clock
    ) -> None:
        """Begin with no sync failed; `now` is the wall clock, in seconds since 1970."""
        self.layout: Layout = layout
        self.level: Durability = level
        self.syncs: Syncs = Syncs(layout, level)
        self.log: logging.Logger = _LOG
        self.adopted: bool = adopted
        """Whether `.spool.json` is there. If not, others may work here without locks, and nothing may be collected."""
        self.doubtful: set[str] | None = None
        """The names that the last recovery of everything could not examine; `None`: there was none yet."""
        self.told_of: set[str] = set()
        """The directories of which the log says already that they cannot be read."""
        self.now: Callable[[], float] = now
        self.collecting: threading.Lock = threading.Lock()
        """Held while one thread looks for remembered names whose time has passed (`remembered.collect_some`)."""
        self.still_to_look_at: Iterator[str] | None = None
        """The names that it has not looked at in this round; `None`: the next call begins a round."""
        self._told_unreadable: set[tuple[str, str]] = set()

    def say_unreadable(self, directory: str, name: str, what: str, why: str) -> None:
        """Log, once, that a file beside an entry cannot be read, and what that means."""
        if not self.is_news(directory, name):
            return
        message = "entry %(entry)s of spool %(spool)s: %(what)s: %(error)s"
        log(self.log.warning, Event.UNREADABLE_NOTES, self.layout.path, message, entry=name, error=why, what=what)

    def is_news(self, directory: str, name: str) -> bool:
        """Tell whether nothing was told so far of a file that cannot be read, and note that it is told now."""
        if (directory, name) in self._told_unreadable:
            return False
        if len(self._told_unreadable) >= _MOST_TOLD:
            self._told_unreadable.clear()
        self._told_unreadable.add((directory, name))
        return True

    def is_adopted(self) -> bool:
        """Tell whether the spool is adopted. Look again if it was not: another process may have adopted it since.

        If it did so by rules that this version does not know, the answer is no: then nothing may be collected.
        """
        if not self.adopted:
            with contextlib.suppress(UnsupportedFormat):
                self.adopted = read_format(self.layout)
        return self.adopted

    def places(self, queue: str | None = None) -> list[Place]:
        """Return the places that can be read, of one queue if given. Log once which directory cannot be read.

        Raises `AccessDenied` if that queue cannot be read.
        """
        shut: Denied = {}
        found = self.layout.places(queue, shut=shut)
        if queue in shut:
            raise shut[queue]
        for directory in shut.keys() - self.told_of:
            self.told_of.add(directory)
            message = "passed over: %(where)s of spool %(spool)s: %(error)s"
            log(self.log.warning, Event.PASSED_OVER, self.layout.path, message, where=directory, error=shut[directory])
        return found

    def keep(self, directory: str, plan: SyncPlan) -> None:
        """Make sure once that power loss spares a directory made on demand, as the plan says.

        Another process may have made it, and died before its sync.
        """
        if plan.before and (pinned := self.layout.pinned(directory)) not in self.layout.kept:
            self.syncs.directory(directory.rpartition("/")[0])
            self.layout.kept.add(pinned)

    @contextlib.contextmanager
    def tidying(self, name: str) -> Generator[None]:
        """Remove what a committed operation left. On failure the operation still succeeds; recovery does the rest."""
        try:
            yield
        except SpoolError as error:
            self.say_left_behind(name, error)

    def say_left_behind(self, name: str, error: SpoolError) -> None:
        """Log that files of an entry could not be removed."""
        message = "left for recovery to collect: files of entry %(entry)s of spool %(spool)s: %(error)s"
        log(self.log.warning, Event.LEFT_BEHIND, self.layout.path, message, entry=name, error=error)
