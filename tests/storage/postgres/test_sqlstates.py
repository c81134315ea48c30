"""What the server answers, in the words of this library."""

from __future__ import annotations

import errno

import psycopg
import pytest
from psycopg import errors as found

from trio_multispool import errors
from trio_multispool.errors import AccessDenied, NotASpool, OutOfSpace, ReadOnlySpool, SpoolGone, StorageFailure
from trio_multispool.storage.postgres.sqlstates import is_again, is_lost, translated

WHERE = "postgresql://anne@db/shop?spool=mail"


def told(error: psycopg.Error, *, opening: bool = False) -> errors.SpoolError:
    """Return the error of this library, which is told in one line."""
    answer = translated(error, "enqueue", WHERE, opening=opening)
    assert answer.__cause__ is error
    assert "\n" not in str(answer)
    return answer


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("connection failed: connection to server at …\n\tIs the server running?"),
        psycopg.InterfaceError("the connection is closed"),
        found.ConnectionException("gone"),
        found.AdminShutdown("terminating connection"),
        found.CrashShutdown("another crashed"),
        found.CannotConnectNow("starting up"),
        found.TooManyConnections("too many clients"),
        found.IdleInTransactionSessionTimeout("idle"),
    ],
)
def test_a_lost_connection_is_a_store_that_cannot_be_reached(error):
    """So a caller can tell a server that is away from one that refuses, and try again."""
    assert is_lost(error)
    assert isinstance(told(error), errors.StoreUnreachable)
    assert not is_again(error)


@pytest.mark.parametrize("error", [found.SerializationFailure("x"), found.DeadlockDetected("x")])
def test_what_only_others_have_undone_may_be_done_again(error):
    """The transaction had no effect; done too often, it is an error of its own."""
    assert is_again(error)
    assert not is_lost(error)
    assert told(error) == StorageFailure("enqueue", WHERE, errno.EAGAIN, "x")


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (found.DiskFull("could not extend file"), OutOfSpace("enqueue", WHERE, "could not extend file")),
        (found.OutOfMemory("out of memory"), OutOfSpace("enqueue", WHERE, "out of memory")),
        (found.UndefinedTable('relation "mail.entry" does not exist'), SpoolGone(WHERE, "the spool's schema")),
        (found.InvalidSchemaName("no"), SpoolGone(WHERE, "the spool's schema")),
        (found.InvalidCatalogName("no database"), NotASpool(WHERE, "no database")),
        (found.QueryCanceled("late"), StorageFailure("enqueue", WHERE, errno.ETIMEDOUT, "late")),
        (found.DataCorrupted("invalid page"), StorageFailure("enqueue", WHERE, errno.EIO, "invalid page")),
        (found.UndefinedColumn("no column"), StorageFailure("enqueue", WHERE, errno.EIO, "no column")),
        (found.PipelineAborted("aborted"), StorageFailure("enqueue", WHERE, errno.EIO, "aborted")),
        (psycopg.DataError("NUL"), StorageFailure("enqueue", WHERE, errno.EINVAL, "NUL")),
        (psycopg.ProgrammingError(""), StorageFailure("enqueue", WHERE, errno.EIO, "ProgrammingError")),
    ],
)  # fmt: skip
def test_every_other_answer_has_its_error(error, answer):
    """The class is by the server's code, never by its words, which are in its own language."""
    assert told(error) == answer
    assert not is_lost(error)


def test_while_a_spool_is_opened_what_is_missing_makes_it_no_spool():
    """Later the same answer means that it has gone; and a column of another version is another format."""
    missing = found.UndefinedTable("no")
    assert told(missing, opening=True) == NotASpool(WHERE, "no")
    assert told(found.UndefinedColumn("no"), opening=True) == errors.UnsupportedFormat(WHERE, "no")


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (found.InsufficientPrivilege("no"), AccessDenied, "grant its role USAGE on the schema"),
        (found.InvalidPassword("no"), AccessDenied, "give a password"),
        (found.ReadOnlySqlTransaction("no"), ReadOnlySpool, "its server takes no writes: it is a standby"),
    ],
)
def test_a_refusal_says_what_to_do_on_a_server(error, kind, says):
    """The words about directories would send a person to the wrong place."""
    answer = told(error)
    assert isinstance(answer, kind)
    assert says in str(answer)
    assert "owner and mode" not in str(answer)
    assert "file system" not in str(answer)


def test_a_long_reason_is_cut():
    """With several hosts, libpq tells of every attempt; a log has lines."""
    assert len(told(psycopg.OperationalError("a b " * 1000)).args[2]) == 501


def test_a_server_that_is_not_there_is_told_in_one_line():
    """The words of libpq name the host and the port, and no password."""
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect("postgresql://anne:secret@127.0.0.1:1,127.0.0.1:2/shop", connect_timeout=2)
    answer = told(caught.value)
    assert isinstance(answer, errors.StoreUnreachable)
    assert "127.0.0.1" in answer.reason
    assert "secret" not in str(answer)
