"""Temporary files of operations that may not own the entry. Its writer locks each, so a dead writer is known.

An owner writes to `.tmp/NAME`, which its registry lock protects. `direct` and `…_unsafe` operations may run beside an
owner, and beside each other. So each writes to its own file, `.tmp/.unsafe.TOKEN-NUMBER.NAME`, and locks that file
itself. After an exchange, the lock is on the file that is now in place. Any process may clear away the old file, which
has the temporary name.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Final

from trio_multispool.clock import process_token
from trio_multispool.errors import EntryBusy, SpoolError
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory.disk.files import begin_new, unlink_if_there
from trio_multispool.storage.directory.disk.layout import NOTES, REMEMBERED, TEMPORARY, UNSAFE_PREFIX
from trio_multispool.storage.directory.disk.locks import lock_temporary

_FEW_ENOUGH: Final = 16
"""How many files in `.tmp`, for each name, are still worth listing: with more, unlinking is quicker."""

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.files import OpenFile
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.disk.locks import Lock
    from trio_multispool.storage.requests import Content

_token: Final = process_token()
_number: Final = itertools.count()
_TRIES: Final = 16


@contextlib.contextmanager
def unsafe_temporary(context: Context, entry: str, content: Content, *, sync: bool) -> Generator[OpenFile]:
    """Yield a new locked file with that content, synced if `sync`; at the end, unlink the file under its name."""
    name, lock = new_temporary(context.layout, entry)
    with lock:
        with begin_new(context.layout, TEMPORARY, name, content, fd=lock.fd) as file:
            if sync:
                file.sync()
        try:
            yield file
        finally:
            with context.tidying(entry):
                unlink_if_there(context.layout, TEMPORARY, name)


def new_temporary(layout: Layout, entry: str) -> tuple[str, Lock]:
    """Make a temporary file, open for writing and locked, so that no recovery clears it; return its name, and the lock.

    Raises `EntryBusy` if recoveries were quicker again and again.
    """
    for _ in range(_TRIES):
        name = f"{UNSAFE_PREFIX}{_token()}-{next(_number)}.{entry}"
        lock = lock_temporary(layout, name, TEMPORARY, new=True)
        if not isinstance(lock, Unavailable):  # otherwise a recovery found it before it was locked
            return name, lock
    raise EntryBusy(entry)


def clear_dead_temporary(context: Context, name: str) -> bool:
    """Unlink such a file if its writer is dead; tell whether the file is gone."""
    lock = lock_temporary(context.layout, name, TEMPORARY, new=False)
    if isinstance(lock, Unavailable):
        return lock is Unavailable.GONE
    with lock:
        unlink_if_there(context.layout, TEMPORARY, name)
    return True


class Leftovers:
    """What may lie under names whose locks are held, looked up once for all names, when first needed.

    Only the holder of an entry's lock writes there under its name, and what keeps a name remembered is made with its
    entry. So a file that was missing once the locks were held is still missing, and need not be unlinked.
    """

    def __init__(self, layout: Layout, names: int) -> None:
        """Begin with nothing looked up; `names` is the number of names."""
        self._layout = layout
        self._most = names * _FEW_ENOUGH if names > 1 else 0
        self._found: tuple[frozenset[str] | None, bool] | None = None
        self._remembered: bool | None = None

    def may_be_remembered(self) -> bool:
        """Tell whether any name may have to be remembered. Most spools remember none, and have no directory for them.

        This opens no descriptor where the directory is missing.
        """
        if self._remembered is None:
            self._remembered = self._may_be_there(REMEMBERED)
        return self._remembered

    def _may_be_there(self, directory: str) -> bool:
        try:
            return directory in self._layout.fds or self._layout.look_at("", directory) is not None
        except SpoolError:  # met again by each removal
            return True

    def found(self) -> tuple[frozenset[str] | None, bool]:
        """Return the files in `.tmp`, `None` if they were not listed, and whether any entry may have notes."""
        if self._found is None:
            self._found = self._listed() if self._most else None, self._may_be_there(NOTES)
        return self._found

    def _listed(self) -> frozenset[str] | None:
        with contextlib.suppress(SpoolError):  # the list is not needed: unlinking one by one does the same
            with self._layout.doing("list", TEMPORARY), self._layout.fresh_fd(TEMPORARY) as fd:
                scanned = itertools.islice(self._layout.calls.scan(fd), self._most + 1)
                listed = frozenset(name for name, _, _ in scanned)
            return listed if len(listed) <= self._most else None
        return None
