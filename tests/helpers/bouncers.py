"""A PgBouncer before a server, which lends its connections for one transaction each; for a test alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.postgresql_servers import SUPERUSER, user_of_servers
from helpers.schemas import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.postgresql import Server

_CONFIGURATION = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 8
max_client_conn = 200
logfile = {folder}/log
pidfile =
{more}
"""


def _program() -> str:
    found = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if found is None:
        pytest.skip("needs pgbouncer, of the package of that name")
    return found


@contextlib.contextmanager
def bouncer(server: Server, more: str = "") -> Iterator[str]:
    """Start one; yield its host and port. `more` is configuration. Skip where it is not installed."""
    program, place = _program(), urllib.parse.urlsplit(server.base)
    if place.password or not place.hostname:
        pytest.skip("needs a server that trusts its clients, at an address")
    user = user_of_servers()
    with tempfile.TemporaryDirectory(prefix="multispool-tests-pgbouncer-") as made:
        folder = Path(made)
        with socket.socket() as tried:
            tried.bind(("127.0.0.1", 0))
            own = tried.getsockname()[1]
        (folder / "users").write_text(f'"{place.username or SUPERUSER}" ""\n')
        values = {"host": place.hostname, "port": place.port or 5432, "own": own, "folder": folder, "more": more}
        (folder / "ini").write_text(_CONFIGURATION.format(**values))
        if user is not None:
            for each in (folder, *folder.iterdir()):
                os.chown(each, user.pw_uid, user.pw_gid)
        started = subprocess.Popen(
            [program, "-q", str(folder / "ini")],
            stdin=subprocess.DEVNULL,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )
        try:
            until(lambda: _answers(own), "PgBouncer listens")
            yield f"127.0.0.1:{own}"
        finally:
            started.kill()
            started.wait()


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
