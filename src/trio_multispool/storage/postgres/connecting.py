"""A connection to the server that notices when its other end is gone, and is noticed when this one is.

Keepalives and a limit for what is not acknowledged are set on both ends of every connection. So a host that was cut off
is given up by the server. Until then, its session holds the lock that says that its owner lives.

A server that is silent, and whose host is not, is no trouble to them. So whoever waits for it waits with a limit.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq

from trio_multispool.errors import NotASpool
from trio_multispool.storage.postgres.arrays import register

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trio_multispool.storage.postgres.address import Address
    from trio_multispool.storage.postgres.patience import Patience

UNSYNCED: Final = "off"
"""What `synchronous_commit` is for what need not survive a crash of the server."""

_PROBES: Final = 3
"""How many keepalives may be unanswered, a second apart."""

Connection = psycopg.Connection[tuple[Any, ...]]

_open: Final[weakref.WeakSet[Connection]] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    """In a forked child: close its copies of the sockets. With them, the server would not see that the parent dies.

    The numbers stay taken, by what can neither be read nor written, for whoever closes them once more.
    """
    for connection in list(_open):
        with contextlib.suppress(psycopg.Error, OSError):
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            _ = os.dup2(nothing, connection.pgconn.socket, inheritable=False)
            os.close(nothing)


os.register_at_fork(after_in_child=_leave_to_the_parent)


def _of_ours(patience: Patience) -> dict[str, Any]:
    """Return parameters of this end of a connection."""
    return {
        "keepalives": 1,
        "keepalives_idle": max(1, patience.given_up - _PROBES),
        "keepalives_interval": 1,
        "keepalives_count": _PROBES,
        "tcp_user_timeout": patience.given_up * 1000,
        "connect_timeout": patience.connect,
    }


def _of_the_server(patience: Patience) -> str:
    """Return options of its other end."""
    settings = {
        "tcp_keepalives_idle": max(1, patience.given_up - _PROBES),
        "tcp_keepalives_interval": 1,
        "tcp_keepalives_count": _PROBES,
        "tcp_user_timeout": patience.given_up * 1000,
        "client_connection_check_interval": 2000,
        "idle_in_transaction_session_timeout": 60_000,
        # Whatever a role prefers: in any other, changes that have nothing to do with each other refuse each other.
        "default_transaction_isolation": r"read\ committed",
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


@contextlib.contextmanager
def no_longer_than(seconds: float, connection: Connection) -> Generator[Callable[[], None]]:
    """Shut a connection if the block takes longer: who waits for an answer is told at once. Yields what allows it."""
    with socket.socket(fileno=os.dup(connection.fileno())) as copy:

        def shut() -> None:
            with contextlib.suppress(OSError):
                copy.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, shut)
        timer.daemon = True
        timer.start()
        try:
            yield timer.cancel
        finally:
            timer.cancel()


def connect(address: Address, patience: Patience, *, synced: bool = True) -> Connection:
    """Connect to the server itself; not `synced`: nothing is, unless it says so.

    Raises `NotASpool` if something that pools transactions answers in its place.
    """
    of_the_user = pq.Conninfo.parse(address.direct.encode())
    options = next((option.val or b"" for option in of_the_user if option.keyword == b"options"), b"").decode()
    try:
        connection = psycopg.connect(
            address.direct,
            autocommit=True,
            prepare_threshold=None,  # what is asked often is prepared by `Statements`
            **_of_ours(patience),
            options=f"{_of_the_server(patience)} {options}" + ("" if synced else f" -c synchronous_commit={UNSYNCED}"),
        )
    except psycopg.OperationalError as error:
        if "unsupported startup parameter" in str(error):
            raise NotASpool(address.location, _POOLED) from error
        raise
    register(connection)
    _open.add(connection)
    try:
        with no_longer_than(patience.connect, connection):
            row = connection.execute("SELECT pg_backend_pid()").fetchone()
    except BaseException:  # passed on, whatever it was: nobody would close it
        connection.close()
        raise
    if row != (connection.info.backend_pid,):
        connection.close()
        raise NotASpool(address.location, _POOLED)
    return connection


def connect_to_pool(conninfo: str, patience: Patience) -> Connection:
    """Connect to what pools transactions: each may run in another session, so nothing is prepared or set."""
    connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None, **_of_ours(patience))
    register(connection)
    _open.add(connection)
    return connection


_POOLED: Final = (
    "a pooler answers there, and who owns an entry is told by a session that stays; give the server's own address, "
    "and the pooler's as a parameter: ?pool=HOST:PORT"
)
