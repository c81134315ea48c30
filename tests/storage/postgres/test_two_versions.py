"""Tables of a later version are used if they say that this one may, and else refused, before anything is changed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest

from helpers.figures import Proof
from helpers.schemas import Tables
from helpers.stores import QUEUES, claim, enqueue, release, remove, save
from helpers.toil import Holder, Workers, settle_down
from trio_multispool import UnsupportedFormat
from trio_multispool.storage.postgres.patience import Patience
from trio_multispool.storage.postgres.schema import VERSION
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from trio_multispool.storage.postgres.address import Address

pytestmark = pytest.mark.postgresql

PATIENT = Patience(answer=60.0, cut_off=60.0)
"""Of workers that a machine may keep waiting which has much else to do."""


def bring_up_to_date(admin: psycopg.Connection[object], address: Address, *, reads: int) -> None:
    """Do what a later version may do to the tables; say which is the oldest that may still use them."""
    for statement in (
        'ALTER TABLE "{0}".entry ADD COLUMN weight integer NOT NULL DEFAULT 7',
        'CREATE TABLE "{0}".more (name text)',
        'CREATE INDEX by_weight ON "{0}".entry (weight)',
    ):
        admin.execute(statement.format(address.schema).encode())
    admin.execute(f'UPDATE "{address.schema}".format SET version = %s, reads = %s'.encode(), (VERSION + 1, reads))


def test_tables_of_a_later_version_that_this_one_may_use_are_used(admin, address):
    """By who has them open already, and by who opens them; what the later version has put there stays."""
    with contextlib.closing(PostgresStorage.open(address.location, QUEUES, create=True)) as before:
        enqueue(before, "send", "a")
        held = claim(before, "send", "a")
        bring_up_to_date(admin, address, reads=VERSION)
        admin.execute(f'UPDATE "{address.schema}".entry SET weight = 9'.encode())
        with contextlib.closing(PostgresStorage.open(address.location, QUEUES, create=True)) as after:
            assert after.recover() == []
            release(before, held)
            save(after, claim(after, "send", "a"), "retry")
            enqueue(after, "send", "b")
            weights = admin.execute(f'SELECT name, weight FROM "{address.schema}".entry ORDER BY name'.encode())
            assert weights.fetchall() == [("a", 9), ("b", 7)]
            remove(before, claim(before, "retry", "a"))
            remove(after, claim(after, "send", "b"))
            assert list(after.recover_all()) == []
            assert after.count() == 0


def test_tables_may_be_brought_up_to_date_while_everybody_is_at_work(tmp_path, admin, address, count):
    """Whoever waits meanwhile for the tables, or has prepared a statement before, goes on; so does who comes later."""
    with contextlib.closing(Tables(psycopg.connect(address.direct, autocommit=True), address.schema)) as tables:
        PostgresStorage.open(address.location, QUEUES, create=True).close()
        with Workers(tmp_path, tables, PATIENT) as workers, Holder(address.location, PATIENT) as holder:
            _ = workers.start(address.location)
            workers.go_on()
            bring_up_to_date(admin, address, reads=VERSION)
            _ = workers.start(address.location)
            workers.go_on()
            assert holder.settle_all() == {None}
            workers.end()
        assert settle_down(address.location, tables, PATIENT) == []
        account = workers.account()
    count(Proof.TWO_VERSIONS, **account.counts())
    assert account.faults == []
    assert not account.refused


def test_tables_of_a_later_version_that_this_one_may_not_use_are_refused(admin, address):
    """However the spool is opened, and with nothing changed."""
    PostgresStorage.open(address.location, QUEUES, create=True).close()
    bring_up_to_date(admin, address, reads=VERSION + 1)
    ways = (
        lambda: PostgresStorage.open(address.location, QUEUES, create=True),
        lambda: PostgresStorage.open(address.location, ("another",), create=True),
        lambda: PostgresStorage.open(address.location, QUEUES),
        lambda: PostgresStorage.open_unsafe(address.location),
        lambda: PostgresStorage.look(address.location),
    )
    for way in ways:
        with pytest.raises(UnsupportedFormat, match=f"version {VERSION + 1}"):
            way()
    assert admin.execute(f'SELECT count(*) FROM "{address.schema}".owner'.encode()).fetchone() == (0,)
    assert admin.execute(f'SELECT count(*) FROM "{address.schema}".queue'.encode()).fetchone() == (len(QUEUES),)
