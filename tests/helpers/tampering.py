"""What a test does to an available entry behind the library's back, wherever the spool is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import postgresql
from helpers.spools import is_url

if TYPE_CHECKING:
    from helpers.spools import Location


def _set(place: Location, name: str, column: str, value: object) -> None:
    server, spool = postgresql.server(), postgresql.name_of(os.fspath(place))
    changed = server.execute(f'UPDATE "{spool}".entry SET {column} = %s WHERE name = %s RETURNING 1', value, name)
    assert changed, f"there is no entry {name}"


def write_metadata(place: Location, queue: str, name: str, metadata: bytes) -> None:
    """Put other metadata in place of an entry's, which may be such as no codec can read."""
    if is_url(place):
        _set(place, name, "metadata", metadata)
    else:
        Path(place, queue, name).write_bytes(metadata)


def date(place: Location, queue: str, name: str, when: float) -> None:
    """Have an entry's metadata been written at that time."""
    if is_url(place):
        _set(place, name, "written_at", when)
    else:
        os.utime(Path(place, queue, name), (when, when))


def forget(place: Location, name: str) -> None:
    """Have the name of an entry that was removed, and is remembered, be forgotten."""
    if is_url(place):
        spool = postgresql.name_of(os.fspath(place))
        postgresql.server().execute(f"DELETE FROM \"{spool}\".entry WHERE name = %s AND state = 'k'", name)
    else:
        Path(place, ".keys", name).unlink()
