"""Temporary files of those who may not own the entry: each is locked by its writer, so that its death is a fact too.

An owner writes to `.tmp/NAME`, which its registry lock protects. `direct` and `…_unsafe` operations may run beside an
owner, and beside each other, so each writes to a file of its own, `.tmp/.unsafe.TOKEN-NUMBER.NAME`, and locks that
file itself. After an exchange, the lock is on the file that is in place now, and the old one, under the temporary
name, may be cleared away by anybody.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Final

from trio_multispool.clock import process_token
from trio_multispool.errors import EntryBusy
from trio_multispool.storage.files import begin_new, undo, unlink_if_there
from trio_multispool.storage.layout import TEMPORARY, UNSAFE_PREFIX
from trio_multispool.storage.locks import lock_temporary
from trio_multispool.verdicts import Unavailable

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio_multispool.storage.context import Context
    from trio_multispool.storage.files import OpenFile
    from trio_multispool.storage.locks import Lock
    from trio_multispool.storage.protocol import Content

_token: Final = process_token()
_number: Final = itertools.count()
_TRIES: Final = 16


@contextlib.contextmanager
def unsafe_temporary(context: Context, entry: str, content: Content, *, sync: bool) -> Generator[OpenFile]:
    """Yield a new locked file with that content, synced if asked; at the end, unlink whatever is under its name."""
    name, lock = _make(context, entry)
    try:
        file = begin_new(context.layout, TEMPORARY, name, content, fd=lock.fd)
        if sync:
            try:
                file.sync()
            except BaseException as error:
                undo(context.layout, file, because=error)
                raise
        try:
            yield file
        finally:
            with context.tidying(entry):
                unlink_if_there(context.layout, TEMPORARY, name)
    finally:
        lock.release()


def _make(context: Context, entry: str) -> tuple[str, Lock]:
    for _ in range(_TRIES):
        name = f"{UNSAFE_PREFIX}{_token()}-{next(_number)}.{entry}"
        lock = lock_temporary(context.layout, name, TEMPORARY, new=True)
        if not isinstance(lock, Unavailable):  # else a recovery found it between its making and its locking
            return name, lock
    raise EntryBusy(entry)


def clear_dead_temporary(context: Context, name: str) -> bool:
    """Unlink such a file if its writer is dead; tell whether it is gone."""
    lock = lock_temporary(context.layout, name, TEMPORARY, new=False)
    if isinstance(lock, Unavailable):
        return lock is Unavailable.GONE
    try:
        unlink_if_there(context.layout, TEMPORARY, name)
    finally:
        lock.release()
    return True
