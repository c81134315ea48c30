"""What is done at one of the hosts of `helpers.namespaces`, and a PostgreSQL server that all of them can reach."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import urllib.parse
from typing import TYPE_CHECKING

import psycopg

from helpers import namespaces, postgresql
from helpers.schemas import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from helpers.namespaces import Network
    from helpers.postgresql import Server
    from trio_multispool.model.types import T


def at(host: str, act: Callable[[], T]) -> T:
    """Do something at a host, in a thread that is there; what it starts and opens is there too."""
    found: list[T] = []
    failed: list[BaseException] = []

    def go() -> None:
        try:
            namespaces.enter(host)
            found.append(act())
        except BaseException as error:  # noqa: BLE001  # raised below
            failed.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


@contextlib.contextmanager
def server_at(network: Network, host: str, near: Path) -> Iterator[Server]:
    """Start a server at a host; yield it as the others reach it."""
    _ = postgresql.programs()  # the run's own server is to be here, where all tests are
    with contextlib.ExitStack() as stack:
        addresses = f"127.0.0.1,{network.address(host)}"
        started = at(host, lambda: stack.enter_context(postgresql.own_server(near, listen_addresses=addresses)))
        with open(f"{started.folder}/data/pg_hba.conf", "a") as file:
            file.write(f"host all all {network.address(host)}/24 trust\n")
        at(host, lambda: started.execute("SELECT pg_reload_conf()"))
        place = urllib.parse.urlsplit(started.base)
        there = f"{place.netloc.rpartition('@')[0]}@{network.address(host)}:{place.port}"
        yield dataclasses.replace(started, base=place._replace(netloc=there).geturl())


@contextlib.contextmanager
def tables_at(host: str, server: Server, schema: str) -> Iterator[Tables]:
    """Yield the tables of a spool that is yet to be made, as somebody at a host sees them."""
    tables = Tables(at(host, lambda: psycopg.connect(server.base, autocommit=True)), schema)
    try:
        yield tables
    finally:
        tables.close()
