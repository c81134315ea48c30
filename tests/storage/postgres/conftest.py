"""Schemas of the server, which are dropped after each test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from helpers.postgresql import server
from trio_multispool.storage.postgres.address import Address
from trio_multispool.storage.postgres.schema import add_queues, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def address() -> Iterator[Address]:
    """Return where a spool can be made."""
    name = f"of_the_store_{os.getpid()}"
    server().drop(name)
    yield Address.parse(server().url(name))
    server().drop(name)


@pytest.fixture
def admin(address: Address) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of the role that owns the database, in autocommit mode."""
    with psycopg.connect(address.direct, autocommit=True) as connection:
        yield connection


@pytest.fixture
def spool(admin: psycopg.Connection[Any], address: Address) -> Address:
    """Return where a spool is, with the queues `send` and `größer`."""
    migrate(admin, address, create=True)
    add_queues(admin, address, ["send", "größer"])
    return address


@pytest.fixture
def role(admin: psycopg.Connection[Any], address: Address) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of a role that has no rights."""
    name = f"{address.schema}_role"
    admin.execute(f"DROP ROLE IF EXISTS {name}")
    admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    with psycopg.connect(address.direct, user=name, password="x", autocommit=True) as connection:
        yield connection
    admin.execute(f"DROP OWNED BY {name} CASCADE")
    admin.execute(f"DROP ROLE {name}")
