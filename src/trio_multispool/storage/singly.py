"""One entry by itself, through the store's operations for several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.requests import NewEntry, Settlement


def enqueue_one(storage: Storage[Any, Any], entry: NewEntry[Any]) -> None:
    """Make one entry. Raises what `Storage.enqueue_together` answers for it."""
    _raise(storage.enqueue_together([entry])[0])


def settle_one(storage: Storage[Any, Any], settlement: Settlement[Any]) -> None:
    """Settle one claim. Raises what `Storage.settle` answers for it."""
    _raise(storage.settle([settlement])[0])


def _raise(failure: BaseException | None) -> None:
    if failure is not None:
        raise failure
