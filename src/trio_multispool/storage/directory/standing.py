"""How the queues of a spool stand, for metrics: one listing of each place, and a bounded look at what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_multispool.errors import OF_ONE_FILE
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory.disk.layout import directory_of
from trio_multispool.storage.directory.disk.locks import lock_existing
from trio_multispool.storage.directory.stamps import available_since
from trio_multispool.storage.requests import LOOKED_AT, Standing

if TYPE_CHECKING:
    from trio_multispool.storage.directory.context import Context


def standings(context: Context) -> list[Standing]:
    """Tell of each queue how it stands. Locks check-outs that it looks at for a moment each, as recovery does."""
    found: dict[str, Standing] = {}
    for place in context.layout.places():
        standing = found.setdefault(place.queue, Standing(place.queue))
        names = context.layout.entry_names(directory_of(place))
        standing.entries[place.state], first = len(names), names[:LOOKED_AT]
        if place.state in (State.AVAILABLE, State.WAITING):
            standing.see(_oldest(context, place, first), context.now())
        elif place.state is State.CHECKED_OUT:
            standing.abandoned = (
                sum(_is_abandoned(context, place, name) for name in first) if context.is_adopted() else None
            )
    return [found[queue] for queue in sorted(found)]


def _oldest(context: Context, place: Place, names: list[str]) -> float | None:
    """Return since when the oldest of these entries is available; `None` if all of them are gone."""
    looked_at = (context.layout.look_at(directory_of(place), name) for name in names)
    waits = place.state is State.WAITING
    return min((available_since(found, waits=waits) for found in looked_at if found is not None), default=None)


def _is_abandoned(context: Context, place: Place, name: str) -> bool:
    """Tell whether a check-out's owner is dead: its lock can be taken, and under it the entry is still there.

    One whose reservation this process may not open is not known to be dead.
    """
    try:
        lock = lock_existing(context.layout, name)
    except OF_ONE_FILE:
        return False
    if isinstance(lock, Unavailable):
        return False
    with lock:
        return context.layout.holds(directory_of(place), name)
