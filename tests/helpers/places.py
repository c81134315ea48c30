"""Where the spools of a test are that is about what a spool does, and not about how it is kept."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from helpers import postgresql
from helpers.spools import closing_at_last

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.spools import Location

PLACES = ["directory", pytest.param("postgresql", marks=pytest.mark.postgresql)]
"""The kinds. Parametrise a fixture with them; most tests take the fixture `place`."""


@contextlib.contextmanager
def place_of(kind: str, tmp_path: Path) -> Iterator[Location]:
    """Yield where a spool of that kind is to be, which is not there yet."""
    if kind == "directory":
        yield tmp_path / "spool"
        return
    location = postgresql.new_spool()
    try:
        with closing_at_last():
            yield location
    finally:
        postgresql.drop_spool(location)
