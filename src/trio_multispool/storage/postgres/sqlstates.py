"""Turns each error of psycopg into one of this library, by its SQLSTATE.

An error that libpq found itself has none: then the connection is the trouble, or the server is. psycopg's own mistakes
(a value that it cannot send) have none either, and are told apart by their class. A reason is the server's first line:
not its details, which quote what is stored.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import errors as psycopg_errors

from trio_multispool.errors import (
    AccessDenied,
    NotASpool,
    OutOfSpace,
    ReadOnlySpool,
    SpoolGone,
    StorageFailure,
    StoreUnreachable,
    UnsupportedFormat,
)

if TYPE_CHECKING:
    from trio_multispool.errors import SpoolError

_LONGEST: Final = 500
"""A reason is cut there: with several hosts, libpq tells of every attempt."""

_AGAIN: Final = ("40001", "40P01")
_NOT_MADE: Final = ("3F000", "42P01")
_OTHERWISE_MADE: Final = ("42703", "42883", "42P10", "42804")
_NO_ROOM: Final = ("53000", "53100", "53200")
_DENIED: Final = ("28000", "28P01", "42501")
_BUSY: Final = (*_AGAIN, "55P03")

_LOST: Final = (
    "57P01",  # an administrator, or the server on its way down, has ended the session
    "57P02",  # another backend has crashed
    "57P03",  # the server starts, stops or recovers
    "57P05",  # it was idle for longer than the server allows
    "25P03",  # likewise in a transaction
    "25P04",  # the transaction took longer than the server allows
    "53300",  # the server has no connection left
)

_RIGHTS: Final = "grant its role USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on the tables in it"
_PROVE_WHO: Final = "give a password that the server accepts: in PGPASSWORD, ~/.pgpass, a service or the URL"
_NO_WRITES: Final = "its server takes no writes: it is a standby, or read-only by its settings"


def sqlstate_of(error: psycopg.Error) -> str | None:
    """Return the server's code for an error; `None` if the server did not send it."""
    return error.diag.sqlstate or error.sqlstate  # the class knows only codes that are of PostgreSQL itself


def is_again(error: psycopg.Error) -> bool:
    """Tell whether the transaction was undone only because of others, and may be done again at once."""
    return sqlstate_of(error) in _AGAIN


def is_lost(error: psycopg.Error) -> bool:
    """Tell whether the connection is gone, or could not be made: connect again."""
    state = sqlstate_of(error)
    if state is not None:
        return state.startswith("08") or state in _LOST
    kinds = (psycopg.OperationalError, psycopg.InterfaceError)
    return isinstance(error, kinds) and not isinstance(error, psycopg_errors.PipelineAborted)


def is_locked(error: SpoolError) -> bool:
    """Tell whether an error of ours is from a lock that was not waited for, or not any longer."""
    return isinstance(error.__cause__, psycopg.Error) and sqlstate_of(error.__cause__) == "55P03"


def reason_of(error: psycopg.Error) -> str:
    """Return what the server or libpq says, in one line."""
    words = " ".join((error.diag.message_primary or str(error)).split())
    return (words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…") or type(error).__name__


def translated(error: psycopg.Error, operation: str, location: str, *, opening: bool = False) -> SpoolError:
    """Return the `SpoolError` for what arose from `operation`.

    `opening`: the spool is being opened. Then a missing schema is `NotASpool`, and other tables `UnsupportedFormat`;
    later it is `SpoolGone`, and `StorageFailure`. A lock that was not waited for is `StorageFailure` too (see
    `is_locked`): whoever does not wait knows which entry was busy.
    """
    found = _error_for(error, operation, location, opening=opening)
    found.__cause__ = error
    return found


def _error_for(error: psycopg.Error, operation: str, location: str, *, opening: bool) -> SpoolError:
    state, reason = sqlstate_of(error), reason_of(error)
    if state is None and error.pgconn is not None and error.pgconn.needs_password:
        return AccessDenied(operation, location, _PROVE_WHO)
    if is_lost(error):
        return StoreUnreachable(operation, location, reason)
    if state in _DENIED:
        return AccessDenied(operation, location, _RIGHTS if state == "42501" else _PROVE_WHO)
    if state == "25006":
        return ReadOnlySpool(operation, location, _NO_WRITES)
    if state in _NO_ROOM:
        return OutOfSpace(operation, location, reason)
    if state == "3D000":
        return NotASpool(location, reason)
    if state in _NOT_MADE:
        return NotASpool(location, reason) if opening else SpoolGone(location, "the spool's schema")
    if opening and state in _OTHERWISE_MADE:
        return UnsupportedFormat(location, reason)
    return StorageFailure(operation, location, _errno(error, state), reason)


def _errno(error: psycopg.Error, state: str | None) -> int:
    """Return the number that comes nearest to what the server reports."""
    if state == "57014":
        return errno.ETIMEDOUT
    if state in _BUSY:
        return errno.EAGAIN
    if isinstance(error, psycopg.DataError):
        return errno.EINVAL
    return errno.EIO
