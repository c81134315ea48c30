"""Reading a whole entry while nobody can change it, and without moving it.

The lock alone keeps owners away: nothing is checked out, so nothing has to be put back when the reader is killed, no
directory changes, and no other reader is woken. To others the entry is busy for as long as it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory.data import as_stat, read_data
from trio_multispool.storage.directory.disk.files import read_file
from trio_multispool.storage.directory.disk.locks import lock_existing, lock_or_reserve
from trio_multispool.storage.directory.disk.oserrors import as_spool_error
from trio_multispool.storage.directory.recovery import collect_if_nowhere

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from trio_multispool.model.types import T
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.stats import Stat


def read_entry(context: Context, queue: str, name: str, read: Callable[[bytes, Stat, BinaryIO], T]) -> T | Unavailable:
    """Return what `read` makes of an available entry's metadata, their size and age, and its data, under its lock."""
    layout = context.layout
    lock = lock_existing(layout, name)
    if lock is Unavailable.GONE:
        if not layout.holds(queue, name):
            return Unavailable.GONE
        lock = lock_or_reserve(layout, name)  # power loss (or a hand) may have taken the reservation
    if isinstance(lock, Unavailable):
        return lock
    try:
        try:
            metadata = layout.again_if_replaced(queue, lambda: read_file(layout, queue, name))
            found = _looked_at(context, queue, name)
        except FileNotFoundError:
            if lock.newborn:  # made for an entry that has gone meanwhile
                _ = collect_if_nowhere(context, name)
            return Unavailable.GONE
        return read_data(context, name, lambda file: read(metadata, found, file))
    finally:
        lock.release()


def _looked_at(context: Context, queue: str, name: str) -> Stat:
    """Look at the metadata file; raises `FileNotFoundError` if a hand that takes no locks has taken it."""
    layout = context.layout
    try:
        return as_stat(layout.calls.stat(name, layout.fd(queue)), layout.full(queue, name))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise as_spool_error(error, "look at", layout.full(queue, name)) from error
