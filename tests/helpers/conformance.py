"""What the suites share that any store must pass: the stores, a caller that can withdraw, and a look at everything."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from helpers import postgresql
from helpers.calls import WithoutSyncs
from helpers.stores import QUEUES, read_data
from trio_multispool import StoreUnreachable
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.memory.contents import Contents
from trio_multispool.storage.memory.store import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio_multispool.storage.protocol import Storage


class Kind(Protocol):
    """Says how a handle on a store of one kind is opened."""

    def __call__(self, tmp_path: Path, clock: Callable[[], float]) -> Callable[[], Storage]:
        """Return a function that opens another handle on the same store; `clock` tells the time of day."""
        ...


def directory_store(tmp_path: Path, clock: Callable[[], float]) -> Callable[[], Storage]:
    """Keep the store in a directory."""
    return lambda: DirectoryStorage.open(tmp_path / "spool", QUEUES, create=True, now=clock)


class NotTold(WithoutSyncs):
    """A kernel that has no inotify instance to spare."""

    def notify(self) -> Any:
        """Refuse."""
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def directory_that_is_not_told(tmp_path: Path, clock: Callable[[], float]) -> Callable[[], Storage]:
    """Keep the store in a directory, and do not hear what comes in."""
    return lambda: DirectoryStorage.open(tmp_path / "spool", QUEUES, create=True, now=clock, calls=NotTold())


def memory_store(tmp_path: Path, clock: Callable[[], float]) -> Callable[[], Storage]:  # no file
    """Keep the store in memory."""
    contents = Contents(clock)
    return lambda: MemoryStorage(contents, QUEUES, "memory://tests")


_LET_GO = "UPDATE SCHEMA.entry SET owner = 0 WHERE name = %s AND owner = %s AND token = %s"


def postgresql_store(tmp_path: Path, clock: Callable[[], float]) -> Callable[[], Storage]:  # no file
    """Keep the store in a schema of the run's server."""
    from trio_multispool.storage.postgres.store import PostgresStorage

    url = postgresql.new_spool()

    def opened() -> Storage:
        storage = PostgresStorage.open(url, QUEUES, create=True, now=clock)
        return letting_go_at_once(postgresql.leaving_the_dead(storage))

    return opened


def letting_go_at_once(storage: Any) -> Any:
    """Have a store on a server let go of what is abandoned at once, and not soon; return it."""

    def let_go(name: str, token: int) -> None:
        with contextlib.suppress(StoreUnreachable):  # the store was closed, and the claim is collected
            storage._links.update("let go in", _LET_GO, (name, storage._links.owner, token))

    storage._context.let_go = let_go
    return storage


STORES = [
    pytest.param(directory_store, id="directory"),
    pytest.param(memory_store, id="memory"),
    pytest.param(postgresql_store, id="postgresql", marks=[pytest.mark.postgresql, pytest.mark.sample]),
]
"""Each is a `Kind`. A new store is one line here."""


def locks_before_commit(store: Storage) -> bool:
    """Tell whether an entry is locked when its check-out is about to be committed, so that others are told."""
    return isinstance(store, (DirectoryStorage, MemoryStorage))


class WithdrawnError(BaseException):
    """What a caller raises who withdraws right before the commit."""


class Commit:
    """A `before_commit` that counts its calls, and raises if it is told to."""

    def __init__(self, *, withdraw: bool = False) -> None:
        """Begin with no call."""
        self.calls = 0
        self.withdraw = withdraw

    def __call__(self) -> None:
        """Count, and raise."""
        self.calls += 1
        if self.withdraw:
            raise WithdrawnError


def look(store: Storage) -> dict[str, Any]:
    """Return every entry by name: where it is, its metadata and its data; each is in one place."""
    found = {}
    for item in store.inventory():
        assert item.name not in found
        found[item.name] = (item.place, store.read_metadata(item.place, item.name), read_data(store, item.name))
    return found
