"""What a connection asks of the server, whatever the role prefers."""

from __future__ import annotations

import re

import psycopg
import pytest

from helpers.stores import enqueue
from trio_multispool import EntryNotFound
from trio_multispool.storage.postgres.address import Address
from trio_multispool.storage.postgres.connecting import connect
from trio_multispool.storage.postgres.patience import PATIENT
from trio_multispool.storage.postgres.store import PostgresStorage

pytestmark = pytest.mark.postgresql


def test_the_isolation_is_ours_unless_the_url_says_otherwise(admin, address, role):
    """A role may prefer one in which changes are refused that have nothing to do with each other."""
    user = role.info.user
    admin.execute(f"ALTER ROLE {user} SET default_transaction_isolation = 'serializable'")
    asked = "SHOW transaction_isolation"
    with psycopg.connect(address.direct, user=user, password="x") as plain:
        assert plain.execute(asked).fetchall() == [("serializable",)]
    of_role = re.sub("//([^@/]*@)?", f"//{user}:x@", address.location, count=1)
    for url, isolation in {
        of_role: "read committed",
        f"{of_role}&options=-c%20default_transaction_isolation%3Dserializable": "serializable",
    }.items():
        with connect(Address.parse(url), PATIENT) as connection:
            assert connection.execute(asked).fetchall() == [(isolation,)]


def test_a_transaction_that_is_undone_leaves_what_the_server_has_prepared(address):
    """On the same connection, the next statement is found there."""
    store = PostgresStorage.open(address.location, ["send"], create=True)
    try:
        for name in "abc":  # the second time, it is prepared
            enqueue(store, "send", name)
        for _ in range(3):  # what psycopg prepares is forgotten when it undoes something, and all else with it
            store.replace_metadata("send", "a", b"2", durability=None, before_commit=lambda: None)
        with pytest.raises(EntryNotFound):
            store.delete("send", "none", durability=None, before_commit=lambda: None)
        enqueue(store, "send", "d")
        assert store.names("send") == [*"abcd"]
    finally:
        store.close()
