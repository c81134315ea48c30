"""Temporary files of those who may not own the entry: each is locked by its writer, so that its death is a fact too.

An owner writes to `.tmp/NAME`, which its registry lock protects. `direct` and `…_unsafe` operations may run beside an
owner, so they write to `.tmp/.unsafe.NAME` and lock that file itself.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from trio_multispool.errors import EntryBusy
from trio_multispool.storage.files import unlink_if_there, write_new
from trio_multispool.storage.layout import TEMPORARY, UNSAFE_DATA_PREFIX, UNSAFE_PREFIX
from trio_multispool.storage.locks import lock_temporary
from trio_multispool.verdicts import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import BinaryIO

    from trio_multispool.storage.context import Context
    from trio_multispool.storage.locks import Lock

_TRIES: Final = 16


@contextlib.contextmanager
def unsafe_temporary(
    context: Context, entry: str, write: Callable[[BinaryIO], None], *, data: bool, sync: bool
) -> Generator[str]:
    """Yield the name of a new locked file with that content, and unlink whatever is under that name at the end.

    Raises `EntryBusy` if somebody is doing the same to the same entry.
    """
    name = (UNSAFE_DATA_PREFIX if data else UNSAFE_PREFIX) + entry
    lock = _make(context, name, entry)
    try:
        write_new(context.layout, TEMPORARY, name, write, sync=sync, fd=lock.fd)
        try:
            yield name
        finally:
            with context.tidying(entry):
                unlink_if_there(context.layout, TEMPORARY, name)
    finally:
        lock.release()


def _make(context: Context, name: str, entry: str) -> Lock:
    for _ in range(_TRIES):
        lock = lock_temporary(context.layout, name, TEMPORARY, new=True)
        if not isinstance(lock, Unavailable):
            return lock
        if lock is Unavailable.BUSY and not clear_dead_temporary(context, name):
            raise EntryBusy(entry)
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
