"""An owner that was taken for dead, buried, and is alive: it goes on, and is told the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helpers.finding import Door, Reader, Ticket
from helpers.stores import claim, enqueue, release, remove
from trio_multispool import OwnershipLost
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from trio_multispool.storage.postgres.address import Address

pytestmark = pytest.mark.postgresql


@pytest.fixture
def buried(admin: psycopg.Connection[Any], address: Address) -> Iterator[PostgresStorage]:
    """Return a store whose owner has been forgotten by the server, with all that it knew of its connections."""
    store = PostgresStorage.open(address.location, ["send"], create=True)
    enqueue(store, "send", "before")
    admin.execute(f'DELETE FROM "{address.schema}".link'.encode())
    yield store
    store.close()


def test_it_enqueues(buried):
    """It is not told that the name is taken, because nothing was made."""
    enqueue(buried, "send", "a")
    enqueue(buried, "send", "b", data=bytes(100_000))
    assert buried.names("send") == ["a", "b", "before"]


def test_it_checks_out(buried):
    """A reader does not take a queue for empty."""
    door = Door()
    door.admits = Ticket("all")
    assert Reader(buried, door=door).take() == ["before"]


def test_it_checks_out_by_name_and_settles(buried, admin, address):
    """Nobody is told that it has lost what it has."""
    held = claim(buried, "send", "before")
    admin.execute(f'DELETE FROM "{address.schema}".link'.encode())
    release(buried, held)
    held = claim(buried, "send", "before")
    admin.execute(f'UPDATE "{address.schema}".entry SET owner = 0'.encode())
    with pytest.raises(OwnershipLost):
        remove(buried, held)


def test_it_deletes(buried):
    """What goes by transactions goes on too."""
    buried.delete("send", "before", durability=None, before_commit=lambda: None)
    assert buried.names("send") == []
