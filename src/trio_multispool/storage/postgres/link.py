"""Changes that are made once, and known to be made or not, though the connection may be lost at any moment.

Theory. When a connection is lost during a commit, nobody tells whether it took place. To look for the effect cannot
tell: a quick consumer may have removed a new entry already. So each connection has a row of its own in `link`, and each
change writes its number there, in the same commit. After a loss, the connection is made anew, and the epoch in its row
goes up by one. That waits for a change that is still running, and keeps one from happening that arrives late: a change
of an older epoch does nothing. Then the row says whether the change took place, and what of it was refused.

That is also what makes it safe to repeat a change that did not take place.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import psycopg
from psycopg import pq

from trio_multispool.clock import stopwatch
from trio_multispool.errors import DurabilityUnknown, ReadOnlySpool, SpoolError, StoreUnreachable
from trio_multispool.model.policies import Durability
from trio_multispool.storage.postgres.arrays import Texts
from trio_multispool.storage.postgres.connecting import UNSYNCED, connect, connect_to_pool, no_longer_than
from trio_multispool.storage.postgres.patience import PATIENT
from trio_multispool.storage.postgres.schema import with_schema
from trio_multispool.storage.postgres.sqlstates import is_again, is_lost, translated
from trio_multispool.storage.postgres.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable

    from trio_multispool.model.types import T
    from trio_multispool.storage.postgres.address import Address
    from trio_multispool.storage.postgres.connecting import Connection
    from trio_multispool.storage.postgres.patience import Patience

    Rows = list[tuple[Any, ...]]

MOST_LINKS: Final = 4
"""How many connections an open spool uses for its operations. More make none of them quicker."""

_LOST: Final = "the connection to the server was lost"

_AGAIN: Final = 5
"""How often a statement is repeated that the server gave up for another one."""

_LOCK: Final = b"SELECT pg_advisory_lock_shared(%s)"

_BEGIN_EPOCH: Final = """
    INSERT INTO SCHEMA.link AS link (owner, number, at) VALUES (%s, %s, extract(epoch FROM clock_timestamp()))
    ON CONFLICT (owner, number) DO UPDATE SET epoch = link.epoch + 1, at = excluded.at
    RETURNING epoch, change, refused"""

_ROW: Final = "SELECT 1 FROM SCHEMA.link WHERE owner = %s AND number = %s AND epoch = %s"

_FENCE: Final = """
    WITH link AS (
        SELECT set_config('synchronous_commit', %(level)s, true)
        FROM SCHEMA.link WHERE owner = %(me)s AND number = %(link)s AND epoch = %(epoch)s FOR UPDATE
    ),"""

_NOTE: Final = """,
    noted AS (
        UPDATE SCHEMA.link SET change = %(change)s,
            refused = ARRAY(SELECT unnest(%(names)s::text[]) EXCEPT SELECT name FROM done)
        WHERE owner = %(me)s AND number = %(link)s AND epoch = %(epoch)s
    )"""

_BEGIN: Final = (
    _FENCE
    + """ noted AS (
        UPDATE SCHEMA.link SET change = %(change)s, refused = '{}'
        WHERE owner = %(me)s AND number = %(link)s AND epoch = %(epoch)s
    ) SELECT 1 FROM link"""
)


@final
class Purpose(NamedTuple):
    """What a change is for."""

    operation: str
    """In words, for messages."""
    queue: str = ""
    name: str = ""
    """Of the entry that `DurabilityUnknown` is about."""
    level: str = UNSYNCED
    """See `Links.level`."""
    is_taken_back: bool = False
    """Whether it is taken back if nobody can tell that it took place: then it is only the server that is away."""


def highest(levels: Iterable[str]) -> str:
    """Return the level for several changes in one commit: if any is synced, all are."""
    return next((level for level in levels if level != UNSYNCED), UNSYNCED)


@final
class Committed:
    """The answer to a change whose answer was lost: it took place, but for what was refused."""

    def __init__(self, refused: Iterable[str]) -> None:
        self.refused: frozenset[str] = frozenset(refused)


@final
class Link:
    """One connection, with its row; used by one thread at a time."""

    def __init__(self, number: int) -> None:
        """Begin without a connection."""
        self.number: int = number
        self.connection: Connection | None = None
        self.statements: Statements | None = None
        """What runs those of its operations."""
        self.epoch: int = 0
        self.change: int = 0
        self.process: int = 0
        """The server's process of the connection; 0: it may be any of a pooler's."""
        self.asking: Callable[[], float] | None = None
        """For how long the server has been asked for something; `None`: it is not."""

    def drop(self) -> None:
        """Forget the connection."""
        connection, self.connection, self.statements = self.connection, None, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                connection.close()

    def waits_for_longer_than(self, seconds: float) -> bool:
        """Tell whether an answer is waited for, and the operation takes so long already."""
        asking, connection = self.asking, self.connection
        waits = connection is not None and connection.info.transaction_status is pq.TransactionStatus.ACTIVE
        return waits and asking is not None and asking() > seconds

    def cut(self) -> None:
        """End what waits for an answer on it, in another thread."""
        connection = self.connection
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                cut(connection.pgconn)


def cut(connection: pq.abc.PGconn) -> None:
    """Shut a connection's socket: who waits for it is told at once."""
    with socket.socket(fileno=os.dup(connection.socket)) as copy:
        copy.shutdown(socket.SHUT_RDWR)


def _undo(link: Link) -> None:
    """End what a statement that failed may have left behind: a transaction, which the next one must not meet."""
    connection = link.connection
    if connection is not None and connection.info.transaction_status is not pq.TransactionStatus.IDLE:
        try:
            connection.rollback()
        except psycopg.Error:
            link.drop()


@final
class Links:
    """The connections of one open spool for its operations; used by any number of threads."""

    def __init__(self, address: Address, owner: int, durability: Durability, patience: Patience = PATIENT) -> None:
        """Begin without any connection. Owner 0 makes no changes, and has no rows."""
        self.address: Address = address
        self.owner: int = owner
        self.patience: Patience = patience
        self._durability = durability
        self._closed = False
        self._all = [Link(number) for number in range(MOST_LINKS)]
        self._free: queue.LifoQueue[Link] = queue.LifoQueue()
        for link in reversed(self._all):
            self._free.put(link)
        self._statements: dict[str, bytes] = {}
        self._pause = threading.Event()
        """Set when it is closed: nobody need wait any longer for the server."""

    def sql(self, statement: str) -> bytes:
        """Return a statement with the schema's name in it."""
        found = self._statements.get(statement)
        if found is None:
            found = self._statements[statement] = with_schema(statement, self.address.schema).encode()
        return found

    def level(self, durability: Durability | None) -> str:
        """Return what `synchronous_commit` is to be for a change."""
        process = (self._durability if durability is None else durability) is Durability.PROCESS
        return UNSYNCED if process else self.synced

    synced: str = "on"
    """What it is for changes that are synced: what the server has, unless that is less."""

    # What operations ask

    def read(self, operation: str, statement: str, values: dict[str, Any] | tuple[Any, ...] = ()) -> Rows:
        """Ask for something that may be asked again."""
        return self._insist(operation, lambda link: self._execute(link, self.sql(statement), values))

    def update(self, operation: str, statement: str, values: dict[str, Any] | tuple[Any, ...] = ()) -> Rows:
        """Make a change that may be made again, with the same effect; it is not synced, but through a pooler."""
        return self.read(operation, statement, values)

    def change(
        self,
        purpose: Purpose,
        statement: str,
        values: dict[str, Any],
        rows: str = "SELECT name FROM done",
    ) -> Rows | Committed:
        """Make a change, once. Its last common table expression is called `done`, and has the names of what was done.

        They are from `link`, which is empty if the change must not be made. The answer is `rows`. `Committed`: the
        answer was lost, and all of the `names` were done but those refused. Raises `DurabilityUnknown` about a queue
        and a name if nobody can tell.
        """
        query, names = self.sql(f"{_FENCE}{statement}{_NOTE} {rows}"), {"names": Texts()}

        def attempt(link: Link) -> Rows | Committed:
            link.change += 1
            of_link = {
                "level": purpose.level,
                "me": self.owner,
                "link": link.number,
                "epoch": link.epoch,
                "change": link.change,
            }
            try:
                answer = self._execute(link, query, {**names, **values, **of_link})
                if not answer and not self._has_row(link):
                    _ = self._connect(link)
                    return attempt(link)
                return answer
            except psycopg.Error as error:
                if not self._is_lost(link, error):
                    raise
                committed = self._resolve(link, purpose)
                if committed is None:
                    raise
                return committed

        return self._insist(purpose.operation, attempt)

    def _has_row(self, link: Link) -> bool:
        """Tell whether a connection has its row. One whose owner was taken for dead has none, and changes nothing."""
        return bool(self._execute(link, self.sql(_ROW), (self.owner, link.number, link.epoch)))

    def read_together(self, operation: str, read: Callable[[Connection], T]) -> T:
        """Return what `read` returns, which sees one state of everything on its connection, and may be called again."""

        def attempt(link: Link) -> T:
            connection = self._connected(link)
            _ = connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return read(connection)

        return self._insist(operation, attempt)

    @contextlib.contextmanager
    def transaction(self, purpose: Purpose) -> Generator[Connection]:
        """Yield a connection in a transaction, which is committed at the end, once. What is raised undoes it."""
        operation = purpose.operation
        with self._lease(operation) as link:
            connection = self._begin(link, operation, purpose.level)
            try:
                yield connection
            except psycopg.Error as error:
                raise self._translated(link, error, operation) from error
            try:
                _ = connection.execute(b"COMMIT")
            except psycopg.Error as error:
                if not self._is_lost(link, error):
                    raise self._translated(link, error, operation) from error
                if self._resolve(link, purpose) is None:
                    raise self._translated(link, error, operation) from error

    def _begin(self, link: Link, operation: str, level: str) -> Connection:
        clock = stopwatch()
        while True:
            try:
                connection = self._connected(link)
                link.change += 1
                values = {"level": level, "me": self.owner, "link": link.number, "epoch": link.epoch}
                _ = connection.execute(b"BEGIN")
                there = connection.execute(self.sql(_BEGIN), {**values, "change": link.change}).fetchone()
                if there is not None or not self.owner:  # who only looks has no row
                    return connection
                _ = self._connect(link)
            except psycopg.Error as error:
                if not self._is_lost(link, error) or not self._wait(clock):
                    raise self._translated(link, error, operation) from error

    # Connections

    @contextlib.contextmanager
    def _lease(self, operation: str) -> Generator[Link]:
        """Yield a free link, with or without a connection."""
        if self._closed:
            raise StoreUnreachable(operation, self.address.location, "it was closed")
        link = self._free.get()
        link.asking = stopwatch()
        try:
            yield link
        finally:
            link.asking = stopwatch()
            _undo(link)
            link.asking = None
            if self._closed:
                link.drop()
            self._free.put(link)

    def _connected(self, link: Link) -> Connection:
        if link.connection is None:
            _ = self._connect(link)
        assert link.connection is not None, "just made"  # noqa: S101  # for the type checkers
        return link.connection

    def _connect(self, link: Link) -> tuple[int, list[str]]:
        """Connect, and begin the next epoch; return the last change that was committed, and what it refused."""
        address = self.address
        link.drop()
        connection = (
            connect(address, self.patience, synced=False)
            if address.pooled is None
            else connect_to_pool(address.pooled, self.patience)
        )
        change: int = 0
        refused: list[str] = []
        try:
            if self.owner:
                with no_longer_than(max(self.patience.answer, self.patience.connect), connection):
                    if address.pooled is None:
                        _ = connection.execute(_LOCK, (self.owner,))
                    row = connection.execute(self.sql(_BEGIN_EPOCH), (self.owner, link.number)).fetchone()
                assert row is not None, "it returns the row"  # noqa: S101  # for the type checkers
                link.epoch, change, refused = row
                link.change = change
        except BaseException:  # passed on, whatever it was: nobody would close it
            connection.close()
            raise
        link.connection = connection
        link.statements = Statements(connection, prepares=address.pooled is None)
        link.process = connection.info.backend_pid if address.pooled is None else 0
        return change, refused

    def _resolve(self, link: Link, purpose: Purpose) -> Committed | None:
        """Find out whether the change took place whose connection was lost; `None`: it did not, and will not."""
        change, clock = link.change, stopwatch()
        while True:
            try:
                committed, refused = self._connect(link)
            except (psycopg.Error, SpoolError) as again:
                if self._wait(clock):
                    continue
                if purpose.is_taken_back:
                    raise StoreUnreachable(purpose.operation, self.address.location, _LOST) from again
                raise DurabilityUnknown(purpose.name, purpose.queue, committed=False, reason=_LOST) from again
            link.change = max(change, committed)
            if committed == change:
                return Committed(refused)
            return None

    def _insist(self, operation: str, attempt: Callable[[Link], T]) -> T:
        """Do something on a connection; again if that was lost, or the server gave it up for another one."""
        clock, times = stopwatch(), 0
        with self._lease(operation) as link:
            while True:
                try:
                    _ = self._connected(link)
                    return attempt(link)
                except psycopg.Error as error:
                    times += 1
                    if is_again(error) and times < _AGAIN:
                        _undo(link)
                        continue
                    if not self._is_lost(link, error) or not self._wait(clock):
                        raise self._translated(link, error, operation) from error

    def _execute(self, link: Link, query: bytes, values: dict[str, Any] | tuple[Any, ...]) -> Rows:
        _ = self._connected(link)
        assert link.statements is not None, "it is connected"  # noqa: S101  # for the type checkers
        return link.statements.execute(query, values)

    def _is_lost(self, link: Link, error: psycopg.Error) -> bool:
        """Tell whether the connection is gone; then forget it."""
        lost = is_lost(error) or (link.connection is not None and link.connection.closed)
        if lost:
            link.drop()
        return lost

    def _wait(self, clock: Callable[[], float]) -> bool:
        """Wait a little, unless it has been too long."""
        return clock() < self.patience.answer and not self._closed and not self._pause.wait(self.patience.again)

    def _translated(self, link: Link, error: psycopg.Error, operation: str) -> SpoolError:
        found = translated(error, operation, self.address.location)
        if isinstance(found, ReadOnlySpool):
            link.drop()  # it may be a server that was the first and is no more
        return found

    # For the keeper

    def waiting_long(self) -> list[int]:
        """Return the server's processes whose answer was waited for for longer than one need be patient.

        0: a pooler knows which one it is.
        """
        return [link.process for link in self._all if link.waits_for_longer_than(self.patience.answer)]

    def cut_silent(self, busy: Collection[int] = ()) -> None:
        """End the operations that have waited so long, but for those on which the server is at work."""
        for link in self._all:
            if link.waits_for_longer_than(self.patience.answer) and link.process not in busy:
                link.cut()

    def close(self) -> None:
        """Close all connections that are not in use, and the others when they are not any more."""
        self._closed = True
        self._pause.set()
        idle: list[Link] = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._free.get_nowait())
        for link in idle:
            link.drop()
            self._free.put(link)  # who waits for one is told
