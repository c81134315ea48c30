"""The control connection: asked by the keeper alone, which never waits for it for longer than it wants to.

A server that accepts and never answers must not stop the keeper, which has to notice just that. So this does not use
psycopg's own waiting, but the functions of libpq that do not wait.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final, final

import psycopg
from psycopg import pq

from trio_multispool.clock import stopwatch
from trio_multispool.storage.postgres.connecting import connect
from trio_multispool.storage.postgres.link import cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.storage.postgres.address import Address
    from trio_multispool.storage.postgres.patience import Patience

_FAILED: Final = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE)


_LOCK_TIMEOUT: Final = "500ms"


class SilentError(Exception):
    """The server has not answered in time."""


@final
class Control:
    """A connection that may be asked one thing at a time, and that notifications come in by."""

    def __init__(self, address: Address, patience: Patience) -> None:
        """Connect. A table that somebody has locked is not waited for: that would look like silence."""
        self._connection = connect(address, patience)
        self._pgconn = self._connection.pgconn
        self.pid: int = self._pgconn.backend_pid
        """The server's process of it."""
        self._prepared: dict[str, bytes] = {}
        try:
            _ = self.ask("SELECT set_config('lock_timeout', $1, false)", _LOCK_TIMEOUT, within=patience.connect)
        except BaseException:  # passed on, whatever it was: nobody would close it
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor of its socket."""
        return self._pgconn.socket

    def ask(self, query: str, *values: object, within: float) -> list[list[str | None]]:
        """Return the rows that answer a question, as text. Raises `SilentError` after `within` seconds.

        The server keeps the plan of each question: some are asked many times a second.
        """
        clock = stopwatch()
        name = self._prepared.get(query)
        if name is None:
            name = f"ask_{len(self._prepared)}".encode()
            self._pgconn.send_prepare(name, query.encode())
            _ = self._answer(clock, within)
            self._prepared[query] = name
        self._pgconn.send_query_prepared(name, [None if value is None else str(value).encode() for value in values])
        return self._answer(clock, within)

    def _answer(self, clock: Callable[[], float], within: float) -> list[list[str | None]]:
        pgconn = self._pgconn
        rows: list[list[str | None]] = []
        failure: psycopg.Error | None = None
        while True:
            events = wait_for(within - clock(), pgconn.socket, writable=bool(pgconn.flush()))
            if not events:
                raise SilentError("it does not answer")
            if events[pgconn.socket] & ~select.POLLOUT:
                pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:  # the connection is free for the next question, also after a failure
                    if failure is not None:
                        raise failure
                    return rows
                if result.status in _FAILED:
                    failure = psycopg.errors.lookup(_sqlstate(result))(result.get_error_message())
                rows += [
                    [_text(result.get_value(row, column)) for column in range(result.nfields)]
                    for row in range(result.ntuples)
                ]

    def notified(self) -> list[tuple[int, str]]:
        """Return the notifications that have come in since the last time: of which process, and what it tells."""
        pgconn = self._pgconn
        pgconn.consume_input()
        found: list[tuple[int, str]] = []
        while (notification := pgconn.notifies()) is not None:
            found.append((notification.be_pid, notification.extra.decode()))
        return found

    def close(self) -> None:
        """End the session, and with it all locks that it has."""
        self._connection.close()

    def cut(self) -> None:
        """End the connection without a word to the server, which may not hear it."""
        try:
            cut(self._pgconn)
        finally:
            self._connection.close()


def wait_for(seconds: float, *descriptors: int, writable: bool = False) -> dict[int, int]:
    """Wait until something can be read from one of these, or, if asked for, written; return what happened to which.

    By `poll`: `select` knows no descriptors above 1023.
    """
    waiting = select.poll()
    for each in descriptors:
        waiting.register(each, select.POLLIN | select.POLLOUT if writable else select.POLLIN)
    return dict(waiting.poll(max(0.0, seconds) * 1000))


def _sqlstate(result: pq.abc.PGresult) -> str:
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"58000").decode()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
