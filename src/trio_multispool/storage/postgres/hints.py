"""Hints of changes: who makes one tells the others of it, so that they need not look for it.

A hint is one line of text. It is sent by `NOTIFY`, after the commit, in a transaction of its own: in the transaction of
the change, it would make all commits wait for each other. A hint that is lost costs one look.
"""

from __future__ import annotations

import collections
import threading
import weakref
from typing import TYPE_CHECKING, Final, final

from trio_multispool.storage.told import Told

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LONGEST: Final = 7000
"""In bytes: what `NOTIFY` carries is at most 8000."""

ARRIVED, MOVED, CANCELLED, LISTENING, OPENED = "a", "m", "c", "l", "o"
"""How hints begin: of entries in a queue, of entries that have moved, of a request, that somebody asks for `m`, that
somebody has opened the spool."""


@final
class Hints:
    """The watches of one open spool, and what is to be told to other processes; used by any number of threads."""

    def __init__(self) -> None:
        """Begin with nothing to tell."""
        self._mutex = threading.RLock()  # a garbage collection may close a watch in any line
        self._watches: weakref.WeakSet[PostgresWatch] = weakref.WeakSet()
        self._arrived: collections.Counter[str] = collections.Counter()
        self._names: dict[str, dict[str, None]] = {MOVED: {}, CANCELLED: {}}
        self.names_wanted: bool = False
        """Whether another process asks which entries have moved."""

    def arrived(self, queue: str, entries: int) -> None:
        """Tell of entries that came into a queue."""
        with self._mutex:
            self._arrived[queue] += entries
            self._tell(ARRIVED, queue, entries)

    def moved(self, names: Iterable[str]) -> None:
        """Tell of entries that have moved, or left."""
        if not (self.names_wanted or self._watches):
            return
        with self._mutex:
            is_watched = self.is_watching(MOVED)
            for name in names:
                if self.names_wanted:
                    self._names[MOVED][name] = None
                if is_watched:
                    self._tell(MOVED, name)

    def cancelled(self, name: str) -> None:
        """Tell of a request to cancel the work on an entry."""
        with self._mutex:
            self._names[CANCELLED][name] = None
            self._tell(CANCELLED, name)

    def tell_here(self, kind: str, names: Iterable[str]) -> None:
        """Tell it in this process alone."""
        with self._mutex:
            for name in names:
                self._tell(kind, name)

    def tell_all(self) -> None:
        """Say that anything may have changed: hints may have been lost."""
        with self._mutex:
            for watch in list(self._watches):
                watch.tell(watch.kind, "", 1)

    def is_watching(self, kind: str) -> bool:
        """Tell whether anything in this process is watched for that."""
        with self._mutex:
            return any(watch.kind == kind for watch in self._watches)

    def _tell(self, kind: str, name: str, times: int = 1) -> None:
        for watch in list(self._watches):
            watch.tell(kind, name, times)

    # As text

    def take(self) -> list[str]:
        """Return what is to be told to other processes, and has not been."""
        with self._mutex:
            hints = [f"{ARRIVED}{entries} {queue}" for queue, entries in self._arrived.items()]
            self._arrived.clear()
            for kind, names in self._names.items():
                hints += [kind + line for line in _lines(names)]
                names.clear()
            if self.is_watching(MOVED):
                hints.append(LISTENING)
        return hints

    @property
    def waiting(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._arrived or any(self._names.values()))

    def heard(self, hint: str) -> None:
        """Pass on what another process tells, or the function `enqueue`."""
        kind, rest = hint[:1], hint[1:]
        with self._mutex:
            if kind == ARRIVED:
                entries, _, queue = rest.partition(" ")
                self._tell(ARRIVED, queue, int(entries) if entries.isdecimal() else 1)
            elif kind == LISTENING:
                self.names_wanted = True
            elif kind in self._names:
                for name in rest.split("/"):
                    self._tell(kind, name)

    def watch(self, kind: str) -> PostgresWatch:
        """Begin to watch."""
        with self._mutex:
            made = PostgresWatch(self, kind)
            self._watches.add(made)
            return made

    def forget(self, watch: PostgresWatch) -> None:
        """Tell a watch nothing more."""
        with self._mutex:
            self._watches.discard(watch)


def _lines(names: Iterable[str]) -> Iterator[str]:
    """Yield the names in lines that are short enough; no name has a slash."""
    line: list[str] = []
    length = 0
    for name in names:
        size = len(name.encode()) + 1
        if line and length + size > LONGEST:
            yield "/".join(line)
            line, length = [], 0
        line.append(name)
        length += size
    if line:
        yield "/".join(line)


@final
class PostgresWatch:
    """Tells which queues may have new entries, which entries may have moved, or that there is a request."""

    def __init__(self, hints: Hints, kind: str) -> None:
        self.kind: str = kind
        self._hints = hints
        self._queues: set[str] = set()
        self._told = Told()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._told.fileno()

    def add(self, queue: str) -> None:
        """Watch a queue from now on."""
        self._queues.add(queue)

    def tell(self, kind: str, name: str, times: int) -> None:
        """Make the descriptor readable, if it is about this; an empty name is about everything."""
        if kind == self.kind and (kind != ARRIVED or not name or name in self._queues):
            self._told.tell(name, times)

    def drain(self) -> collections.Counter[str]:
        """Return what was told since the last time."""
        return self._told.take()

    def close(self) -> None:
        """Stop watching."""
        self._hints.forget(self)
        self._queues.clear()
        self._told.close()
