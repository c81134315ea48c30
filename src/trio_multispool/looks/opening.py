"""What looks at a spool: at a directory, by reading it, and at any other store by asking it."""

from pathlib import Path
from typing import Protocol

from trio_multispool.looks.asking import Asker
from trio_multispool.looks.directory import Looker
from trio_multispool.looks.seen import Details, Listing, Look
from trio_multispool.session.stores import is_directory


class Looks(Protocol):
    """Looks at one spool, again and again, in one thread at a time. Locks nothing, and writes nothing."""

    @property
    def seen(self) -> int:
        """How many names the look that is under way has read; may be read by another thread."""
        ...

    def look(self) -> Look:
        """Look at everything once; raises a `SpoolError` if there is no spool (any more)."""
        ...

    def listing(self, queue: str) -> Listing:
        """List one queue; raises `OSError` if it has gone or cannot be read, and a `SpoolError` if the spool cannot."""
        ...

    def details(self, queue: str, name: str) -> Details | None:
        """Return what is known about an entry that was seen in this queue, or `None` if it is no more."""
        ...

    def stop(self) -> None:
        """End the look that is under way, and all later ones, soon."""
        ...

    def close(self) -> None:
        """Free what was kept from one look to the next, when none is under way."""
        ...


def looks_at(location: str) -> Looks:
    """Return what looks at a spool."""
    return Looker(Path(location)) if is_directory(location) else Asker(location)
