"""Which syncs each level of durability needs, and what happens when a sync fails.

A failed sync is never tried again: the kernel has marked the pages clean, and a second sync would report success for
lost data. Before the commit, the operation is undone and answers `StorageFailure`; the entry is where it was. After the
commit, the answer is `DurabilityUnknown`. If a *directory* could not be synced, renames of other operations may be lost
with it. So until the spool is loaded again, it refuses all operations that must survive power loss.

In a spool of level `POWER`, an operation that asks for `PROCESS` leaves out only its last sync. Leaving out others
could tear or lose what an earlier operation acknowledged. In a spool of level `PROCESS`, an operation that asks for
`POWER` also syncs what earlier operations left unsynced.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, final

import msgspec

from trio_multispool.errors import DurabilityUnknown, SyncsRefused
from trio_multispool.model.policies import Durability, check_durability
from trio_multispool.storage.directory.commits import CommitUnknown
from trio_multispool.storage.directory.disk.files import Opened, OpenFile
from trio_multispool.storage.directory.disk.layout import DATA, directory_of
from trio_multispool.storage.directory.syncs.queue import SyncQueue
from trio_multispool.storage.directory.syncs.whole import WholeSync

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable

    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.syncs.together import Need


@final
class SyncPlan(msgspec.Struct, frozen=True):
    """The syncs of one operation."""

    before: bool
    """Whether it makes those before the commit."""
    after: bool
    """Whether it makes the last one, after the commit. That makes the operation itself durable."""
    catch_up: bool
    """Whether it also syncs what earlier operations did not."""


@functools.cache  # of a handful of combinations
def sync_plan(spool: Durability, call: Durability | None) -> SyncPlan:
    """Return the syncs of an operation for the level of its spool and the level of the call."""
    wanted = spool if call is None else call
    return SyncPlan(
        before=Durability.POWER in (spool, wanted),
        after=wanted is Durability.POWER,
        catch_up=wanted is Durability.POWER and spool is Durability.PROCESS,
    )


def catch_up(layout: Layout) -> list[str]:
    """Return the directories in which earlier operations on an entry may have left something unsynced."""
    return [DATA, *(directory_of(place) for place in layout.places())]


@contextlib.contextmanager
def telling_outcome(name: str, queue: str) -> Generator[None]:
    """Wrap the commit of an operation. If nobody can see whether it took place, the answer says so."""
    try:
        yield
    except CommitUnknown as error:
        raise DurabilityUnknown(name, queue, committed=False) from error


@contextlib.contextmanager
def committing(name: str, queue: str) -> Generator[None]:
    """Wrap the last sync of an operation. The commit is done; a failure means that power loss may undo it."""
    try:
        yield
    except Exception as error:  # its cause: whatever went wrong, the commit stands
        raise DurabilityUnknown(name, queue, committed=True) from error


class Syncs:
    """Syncs files and directories, shared by threads, and remembers whether the sync of a directory ever failed."""

    def __init__(self, layout: Layout, level: Durability) -> None:
        """Begin with nothing failed."""
        check_durability(level)
        self._layout = layout
        self._level = level
        self._failed = False
        self._usual: SyncPlan = sync_plan(level, None)
        self._whole = WholeSync(layout)
        self._queue: SyncQueue[Need] = SyncQueue(self._now)

    def plan(self, durability: Durability | None) -> SyncPlan:
        """Return the syncs of one operation; raises `SyncsRefused` if it needs any and a directory has failed."""
        plan = self._usual
        if durability is not None:
            check_durability(durability)
            plan = sync_plan(self._level, durability)
        if plan.before and self._failed:
            raise SyncsRefused(self._layout.path)
        return plan

    @property
    def guarding(self) -> bool:
        """Whether an operation without a level of its own must keep power loss from undoing earlier ones.

        Once the sync of a directory has failed, its syncs are refused, and then it must not go on.
        """
        return self._level is Durability.POWER

    def directory(self, directory: str) -> None:
        """Sync a directory. Raises `StorageFailure`; from then on all durable operations fail, even those under way."""
        if self._failed:
            raise SyncsRefused(self._layout.path)
        with self._layout.doing("sync", directory):
            fd = self._layout.fds[directory]  # opens it if needed: if that fails, no sync has failed
        try:
            with self._layout.doing("sync", directory):
                self._layout.calls.sync(fd)
        except BaseException:  # passed on: whatever it was, the directory may not be on disk
            self._failed = True
            raise

    def together(self, needs: Iterable[Need]) -> dict[Need, Exception]:
        """Sync files, then directories, together with those of other threads; return those that failed."""
        return self._queue.sync(needs)

    def _now(self, needs: Collection[Need]) -> dict[Need, Exception]:
        failures: dict[Need, Exception] = {}
        if self._failed:  # the directories among them are refused, one by one
            self._each(needs, failures)
        else:
            self._whole.sync(len(needs), lambda: self._each(needs, failures))
        return failures

    def _each(self, needs: Collection[Need], failures: dict[Need, Exception]) -> None:
        files = [need for need in needs if isinstance(need, OpenFile)]
        acts: list[tuple[Need, Callable[[], None]]] = []
        if len(files) > 1:
            acts += [(file, file.write_out) for file in files]
        acts += [(file, file.sync) for file in files]
        acts += [(need, functools.partial(self.directory, need)) for need in needs if isinstance(need, str)]
        for need, act in acts:
            if need not in failures:
                try:
                    act()
                except Exception as error:  # noqa: BLE001  # raised in each operation that needed it
                    failures[need] = error

    def committed(self, directory: str, name: str, queue: str) -> None:
        """Sync a directory after a commit; raises `DurabilityUnknown`."""
        with committing(name, queue):
            for failure in self.together((directory,)).values():
                raise failure

    def catch_up(self, name: str, plan: SyncPlan) -> None:
        """Sync what earlier operations on an entry may have left unsynced, if the plan asks for it."""
        if plan.catch_up:
            self.file(DATA, name)
            for directory in catch_up(self._layout):
                self.directory(directory)

    def file(self, directory: str, name: str) -> None:
        """Sync a file that was written earlier; do nothing if it is gone."""
        try:
            with Opened(self._layout, directory, name) as (fd, _), self._layout.doing("sync", directory, name):
                self._layout.calls.sync(fd)
        except FileNotFoundError:
            return
