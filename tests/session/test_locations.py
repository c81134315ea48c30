"""Where a spool is said to be: absolute, and without a password; and where it is opened again."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from helpers import postgresql
from helpers.spools import ANNE, MAIL, Mail
from trio_multispool import blocking
from trio_multispool.session.stores import location_of, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def url() -> Iterator[str]:
    """Name a spool on the server, with a password in its URL."""
    server, name = postgresql.server(), f"locations_{secrets.token_hex(8)}"
    yield server.url(name, password="s3cret")
    server.drop(name)


def test_a_location_for_a_message_says_no_more_of_a_url_than_how_it_begins(tmp_path):
    """A path is said as it is."""
    assert without_secrets(tmp_path) == str(tmp_path)
    assert without_secrets("var/mail") == "var/mail"
    assert without_secrets("postgresql://anne:s3cret@host/db") == "postgresql://…"
    assert without_secrets("redis:/anne:s3cret@host") == "redis://…"


def test_a_location_is_told_as_its_store_tells_it(url, tmp_path, monkeypatch):
    """Without opening anything."""
    monkeypatch.chdir(tmp_path)
    assert location_of("mail") == str(tmp_path / "mail")
    with blocking.Spool.create(url, MAIL).unwrap() as spool:
        assert location_of(url) == spool.location
        assert "s3cret" not in spool.location


def test_a_collector_counts_a_spool_on_a_server(url):
    """Its label has no password."""
    prometheus = pytest.importorskip("trio_multispool.integrations.prometheus")
    with blocking.Spool.create(url, MAIL).unwrap() as spool:
        spool.enqueue(Mail.SEND, ANNE, b"").unwrap()
        families = list(prometheus.SpoolCollector(url).collect())
        assert {sample.labels["spool"] for family in families for sample in family.samples} == {spool.location}
        entries, *_, readable = families
        assert [sample.value for sample in readable.samples] == [1.0]
        assert {sample.value for sample in entries.samples if sample.labels["state"] == "available"} == {0.0, 1.0}


def test_a_forked_child_opens_the_url_that_was_given(url, tmp_path, monkeypatch):
    """The location has no password. A directory is found by its absolute path, wherever the child is."""
    with blocking.Spool.create(url, MAIL).unwrap() as spool:
        assert spool._load.args == (url,)
    monkeypatch.chdir(tmp_path)
    with blocking.Spool.create("mail", MAIL).unwrap() as spool:
        assert spool._load.args == (str(tmp_path / "mail"),)
