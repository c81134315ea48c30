"""A server, and schemas of it that are dropped after each test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from trio_multispool.storage.postgres.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> str:
    """Return the URL of a server's database, of which the role is the owner."""
    url = os.environ.get("MULTISPOOL_TEST_POSTGRESQL")
    if not url:
        pytest.skip("there is no server: give the URL of one in MULTISPOOL_TEST_POSTGRESQL")
    return url


@pytest.fixture
def admin(server: str) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of the role that owns the database."""
    with psycopg.connect(server, autocommit=True) as connection:
        yield connection


@pytest.fixture
def address(server: str, admin: psycopg.Connection[Any]) -> Iterator[Address]:
    """Return where a spool can be made."""
    made = Address.parse(f"{server}?spool=hc_{os.getpid()}")
    _ = admin.execute(f"DROP SCHEMA IF EXISTS {made.schema} CASCADE")
    yield made
    _ = admin.execute(f"DROP SCHEMA IF EXISTS {made.schema} CASCADE")
