"""`Upkeep`: looking after a store whose parts a person can reach, as those of a directory can be reached.

A directory may have users that take no locks, files that belong to nobody, and writers that died half-way. Then it must
be adopted, and more can be wrong with it than elsewhere. A store that keeps all that from happening has no upkeep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from trio_multispool.errors import NotASpool

if TYPE_CHECKING:
    from trio_multispool.storage.findings import Loose
    from trio_multispool.storage.protocol import Storage


@runtime_checkable
class Upkeep(Protocol):
    """What can be done for a store besides what `Storage` does."""

    def is_adopted(self) -> bool:
        """Tell whether every user of this store takes locks. Then an owner without a lock is known to be dead."""
        ...

    def adopt(self) -> None:
        """Declare that from now on every user of this store takes locks. Then recovery may act."""
        ...

    def look_again(self, finding: Loose) -> Loose | None:
        """Look once more at a file that is judged by itself; `None` if it is gone, or if nothing is wrong with it."""
        ...

    def reserve_again(self, name: str) -> bool:
        """Make the reservation of an entry that has lost it; tell whether that was done."""
        ...

    def clear_temporary(self, name: str) -> bool:
        """Delete a temporary file if its writer is dead; tell whether the file is gone."""
        ...


def is_adopted(storage: Storage[Any, Any]) -> bool:
    """Tell whether every user of a store is known to take locks. Raises a `SpoolError` if it cannot be looked up."""
    return not isinstance(storage, Upkeep) or storage.is_adopted()


def adopt(storage: Storage[Any, Any]) -> None:
    """Declare that from now on every user takes locks. Raises `NotASpool` for a store that has no others."""
    upkeep_of(storage, "adopting").adopt()


def upkeep_of(storage: Storage[Any, Any], what: str) -> Upkeep:
    """Return the upkeep of a store, which is needed for `what`; raises `NotASpool` if it has none."""
    if not isinstance(storage, Upkeep):
        raise NotASpool(storage.location, f"its store needs no upkeep; {what} is for spools in a directory")
    return storage
