"""The standard library's `mailbox.Maildir`: it syncs the file, and no directory; nothing claims an entry."""

from __future__ import annotations

import mailbox
from typing import TYPE_CHECKING

from bench.systems.blocking import Blocking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.work import Phase, Work


class Maildir(Blocking):
    """One mailbox."""

    def __init__(self, work: Work) -> None:
        """Make it, or find it."""
        super().__init__(work)
        self._box = mailbox.Maildir(f"{work.folder}/mail", create=True)
        self._keys: Iterator[str] = iter(())

    def before(self, phase: Phase) -> None:
        """List, if there is something to take."""
        if phase == "remove":
            self._keys = iter(sorted(self._box.keys()))

    def put(self, number: int) -> None:
        """Add."""
        _ = self._box.add(self.payload)

    def take(self) -> bool:
        """Get and remove."""
        key = next(self._keys, None)
        if key is None:
            return False
        _ = self._box.get_bytes(key)
        self._box.remove(key)
        return True


def opened(work: Work) -> Maildir:
    """Open it."""
    return Maildir(work)
