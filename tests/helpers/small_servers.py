"""A spool on a server that has little room for it: its tables lie on a small disk.

The disk is a file system in memory that only this process sees, and the server that it starts: for a child process.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from helpers import mounts
from helpers.finding import Reader
from helpers.losing import Open
from helpers.postgresql_servers import Binaries, find_source, keep, user_of_servers
from helpers.schemas import Tables
from helpers.stores import OLD, QUEUES, nothing
from trio_multispool import OutOfSpace
from trio_multispool.storage.postgres.store import PostgresStorage
from trio_multispool.storage.requests import NewEntry, Removing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

SMALL, LARGE = "3m", "64m"
AT_A_TIME = 64
DATA = bytes(900)


class SmallServer:
    """The server, and what was answered; put `with` around it."""

    def __init__(self, near: Path) -> None:
        """Start it, make the spool, and move its tables to a small disk."""
        mounts.enter_private()
        source, user = find_source({}), user_of_servers()
        assert isinstance(source, Binaries), "the test has looked"
        assert user is not None, "who may mount is root"
        self._server = keep(source, near, os.getpid(), {})
        assert self._server.folder is not None
        self._folder = Path(self._server.folder)
        self._disk = self._folder / "small"
        self._disk.mkdir()
        mounts.tmpfs(self._disk, f"size={SMALL}", f"uid={user.pw_uid}", f"gid={user.pw_gid}")
        self.tables = Tables(psycopg.connect(self._server.base, autocommit=True), "full")
        self.url = self._server.url(self.tables.schema)
        self.refused = self.acknowledged = 0
        PostgresStorage.open(self.url, QUEUES, create=True).close()
        self._move_tables()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._server.end()

    def _move_tables(self) -> None:
        ask = self.tables.ask
        ask(f"CREATE TABLESPACE small LOCATION '{self._disk}'")
        for table in ("entry", "chunk"):
            ask(f"ALTER TABLE SCHEMA.{table} SET TABLESPACE small")
            for (index,) in ask(
                f"SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'full.{table}'::regclass"
            ):
                ask(f"ALTER INDEX {index} SET TABLESPACE small")

    def has_room_for(self, act: Callable[[], Any]) -> bool:
        """Do something; tell whether there was room for it."""
        try:
            act()
        except OutOfSpace:
            self.refused += 1
            return False
        self.acknowledged += 1
        return True

    def fill(self, storage: PostgresStorage) -> set[str]:
        """Enqueue until nothing fits any more, however little it is; return what is there. What is refused is not."""
        there: set[str] = set()
        number, size = 0, AT_A_TIME
        while size:
            names = [f"{number + one:06}" for one in range(size)]
            number += size
            if self.has_room_for(lambda names=names: enqueue_together(storage, names)):
                there.update(names)
            else:
                assert not set(names) & self.tables.names(), "what was refused is there"
                size //= 2
        return there

    def has_refused(self, process: int) -> bool:
        """Tell whether the server has told one of its processes that there is no room."""
        with open(self._folder / "log", errors="replace") as log:
            return any(f"[{process}]" in line and "No space left" in line for line in log)

    def make_room(self) -> None:
        """Make the disk larger."""
        mounts.resize(self._disk, LARGE)


def enqueue_together(storage: PostgresStorage, names: Sequence[str], queue: str = "send") -> None:
    """Enqueue in one commit, or not."""
    reserved = [storage.reserve(name, unique=True) for name in names]
    for failure in storage.enqueue_together([NewEntry(each, queue, OLD, DATA, None, nothing) for each in reserved]):
        if failure is not None:
            raise failure


def work_off(storage: PostgresStorage) -> None:
    """Remove everything."""
    for queue in QUEUES:
        while found := Reader(storage, queue, door=Open()).ask(most=AT_A_TIME).claims:
            assert not any(storage.settle([Removing(claimed, None, nothing) for claimed, _ in found]))


def die(storage: PostgresStorage) -> None:
    """End all sessions of a store, and what would connect again, as if its process had died."""
    keeper = storage._context.keeper
    assert keeper is not None
    keeper._closed = True
    keeper._drop()
    keeper._thread.join()
    with contextlib.suppress(psycopg.Error):
        storage._links.close()
