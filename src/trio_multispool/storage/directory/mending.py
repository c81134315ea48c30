"""Putting right what needs no judgement: a reservation that is missing, a temporary file whose writer is dead.

Both can be repeated, and killed at any time. What recovery does anyway (`recovery.recover_name`), and setting an entry
aside (`settling.quarantine`), is not repeated here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_multispool.model.names import invalid_name
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory.disk.layout import DATA_PREFIX, NOTES_PREFIX, TEMPORARY, UNSAFE_PREFIX
from trio_multispool.storage.directory.disk.locks import lock_existing, lock_new
from trio_multispool.storage.directory.recovery import collect_if_nowhere, recover_name
from trio_multispool.storage.directory.temporaries import clear_dead_temporary

if TYPE_CHECKING:
    from trio_multispool.storage.directory.context import Context


def reserve_again(context: Context, name: str) -> bool:
    """Make the reservation of an entry that has none; tell whether that was done."""
    layout = context.layout
    found = lock_existing(layout, name)
    if not isinstance(found, Unavailable):
        found.release()
    if found is not Unavailable.GONE or not layout.places_of(name):
        return False
    lock = lock_new(layout, name)
    if isinstance(lock, Unavailable):  # somebody else is making it
        return False
    try:
        return not collect_if_nowhere(context, name)  # it may have gone between the two looks
    finally:
        lock.release()


def clear_temporary(context: Context, name: str) -> bool:
    """Unlink a temporary file if its writer is dead, as recovery does; tell whether it is gone."""
    if name.startswith(UNSAFE_PREFIX):
        return clear_dead_temporary(context, name)
    entry = name.removeprefix(DATA_PREFIX).removeprefix(NOTES_PREFIX)
    if invalid_name(entry) is not None:
        return False
    _ = recover_name(context, entry)
    return not context.layout.holds(TEMPORARY, name)
