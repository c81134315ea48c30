"""The URL of a spool on a server: what libpq gets of it, what is told of it, and that no password is told."""

from __future__ import annotations

import inspect
import re
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from trio_multispool.errors import NotASpool
from trio_multispool.storage.postgres.address import Address

PASSWORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=6, max_size=20)


def refused(url: str) -> NotASpool:
    """Return the error with which a URL is refused; nothing hangs on it that quotes the URL."""
    with pytest.raises(NotASpool) as caught:
        Address.parse(url)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("postgresql://", "postgresql:///?spool=multispool"),
        ("postgres://anne@db/shop?spool=mail", "postgresql://anne@db/shop?spool=mail"),
        ("postgresql://anne:secret@db:5433/shop", "postgresql://anne@db:5433/shop?spool=multispool"),
        ("postgresql://db/shop?password=secret&user=anne", "postgresql://anne@db/shop?spool=multispool"),
        ("postgresql://a:1,b:2/shop?spool=x", "postgresql://a:1,b:2/shop?spool=x"),
        ("postgresql://a,b/shop?spool=x&port=7", "postgresql://a:7,b:7/shop?spool=x"),
        ("postgresql://a,b/shop?spool=x", "postgresql://a,b/shop?spool=x"),
        ("postgresql://[::1]:5/shop?spool=x", "postgresql://[::1]:5/shop?spool=x"),
        ("postgresql:///shop?host=/run/pg&spool=x", "postgresql://%2Frun%2Fpg/shop?spool=x"),
        ("postgresql://%2Frun%2Fpg/shop?spool=x", "postgresql://%2Frun%2Fpg/shop?spool=x"),
        (
            "postgresql://db/shop?spool=x&sslpassword=secret&sslmode=require&connect_timeout=3",
            "postgresql://db/shop?connect_timeout=3&sslmode=require&spool=x",
        ),
        (
            "postgresql://db/shop?passfile=/etc/pg%20pass&spool=x",
            "postgresql://db/shop?passfile=/etc/pg%20pass&spool=x",
        ),
        ("postgresql://db/a%2Fb%3Fc?spool=x", "postgresql://db/a%2Fb%3Fc?spool=x"),
        ("postgresql://db/shop?spool=x&pool=bouncer:6432", "postgresql://db/shop?spool=x&pool=bouncer:6432"),
        (
            "postgresql://db/shop?pool=" + quote("postgres://bob:secret@bouncer:6432/pooled", safe="") + "&spool=x",
            "postgresql://db/shop?spool=x&pool=postgresql://bob%40bouncer:6432/pooled",
        ),
        (
            "postgresql://db/shop?spool=x&pool=" + quote(":secret@bouncer", safe=""),
            "postgresql://db/shop?spool=x&pool=bouncer",
        ),
    ],
)
def test_a_location_is_the_url_in_one_form_and_without_secrets(url, location):
    """It is what `spool.location` shows, and it opens the same spool: told again, it is the same."""
    address = Address.parse(url)
    assert address.location == location
    assert Address.parse(location).location == location
    assert repr(address) == f"Address({location!r})"
    assert "secret" not in f"{address}{address!r}{address.location}"


def test_libpq_gets_everything_but_our_own_parameters():
    """Its passwords, and its own parameters as they are; `spool` and `pool` would be refused by it."""
    address = Address.parse(
        "postgresql://anne:s%20cret@db:5433/shop?sslmode=require&options=-c%20a%3Db&pool=bouncer:6432&spool=mail"
    )
    assert address.schema == "mail"
    direct, pooled = conninfo_to_dict(address.direct), conninfo_to_dict(address.pooled or "")
    assert direct == {
        "user": "anne", "password": "s cret", "host": "db", "port": "5433", "dbname": "shop", "sslmode": "require",
        "options": "-c a=b", "fallback_application_name": "multispool",
        "client_encoding": "utf8",
    }  # fmt: skip
    del direct["options"]  # a pooler refuses it
    assert pooled == direct | {"host": "bouncer", "port": "6432"}


def test_a_pool_given_as_a_url_says_what_differs():
    """User, password and database are those of the direct place, but for what the pool's URL names."""
    pool = quote("postgresql://bob:other@bouncer/pooled?sslmode=disable", safe="")
    address = Address.parse(f"postgresql://anne:secret@db:5433/shop?sslmode=require&pool={pool}")
    pooled = conninfo_to_dict(address.pooled or "")
    assert (pooled["user"], pooled["password"], pooled["host"]) == ("bob", "other", "bouncer")
    assert (pooled["dbname"], pooled["sslmode"], "port" in pooled) == ("pooled", "disable", False)
    assert conninfo_to_dict(address.direct)["host"] == "db"


@pytest.mark.parametrize(
    ("url", "attributes"),
    [
        ("postgresql://a,b/shop", "read-write"),
        ("postgresql:///shop?hostaddr=127.0.0.1,127.0.0.2", "read-write"),
        ("postgresql://a,b/shop?target_session_attrs=any", "any"),
        ("postgresql://a/shop", None),
    ],
)
def test_of_several_hosts_one_that_takes_writes_is_wanted(url, attributes, monkeypatch):
    """After a failover the first that answers may be the standby; who wants something else can say so."""
    monkeypatch.delenv("PGHOST", raising=False)
    monkeypatch.delenv("PGTARGETSESSIONATTRS", raising=False)
    assert conninfo_to_dict(Address.parse(url).direct).get("target_session_attrs") == attributes
    assert "read-write" not in Address.parse(url).location


def test_hosts_of_the_environment_count_too(monkeypatch):
    """It takes what the URL leaves open from the environment; the location leaves it open too."""
    monkeypatch.setenv("PGHOST", "a,b")
    address = Address.parse("postgresql:///shop?spool=x")
    assert conninfo_to_dict(address.direct)["target_session_attrs"] == "read-write"
    assert address.location == "postgresql:///shop?spool=x"
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "primary")
    assert "target_session_attrs" not in conninfo_to_dict(Address.parse("postgresql:///shop").direct)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("spool=Mail", "'Mail' cannot be the name of its schema"),
        ("spool=", "'' cannot be the name"),
        ("spool=pg_mail", "no pg_ at the start"),
        ("spool=a-b", "cannot be the name"),
        ("spool=a%22b", "cannot be the name"),
        ("spool=a%0A", "cannot be the name"),
        ("spool=" + "a" * 41, "at most 40"),
        ("spool=a&spool=b", "spool= is given twice"),
        ("spoool=mail", "there is no parameter 'spoool'"),
        ("control=h", "there is no parameter 'control'"),
        ("pool=", "pool= is empty"),
        ("pool=h%3Fspool%3Dx", "spool= does not belong into the URL of pool="),
        ("pool=h&pool=h", "pool= is given twice"),
        ("pool=h:many", "a number"),
        ("spool", "a parameter after the ? is NAME=VALUE"),
        ("sslmode=a=b", "a parameter after the ? is NAME=VALUE"),
        ("sslmode=%zz", "check its percent signs"),
        ("user=anne@host", "write %40 for each @"),
    ],
)
def test_what_no_spool_can_be_at_is_refused_with_the_cure(query, says):
    """Nothing is left for libpq to complain about; the message says what to write instead."""
    assert says in str(refused(f"postgresql://anne:secret@db/shop?{query}"))


@pytest.mark.parametrize("url", ["http://db/shop", "postgresql:/db", "/srv/mail", "", "postgresql", "POSTGRESQL://db"])
def test_what_is_no_url_of_a_server_is_refused(url):
    """A path, or a scheme that libpq would not read, is not taken for one."""
    assert "begins with postgresql://" in str(refused(url))


@pytest.mark.parametrize(
    "url", ["postgresql://[::1", "postgresql://[]:5/db", "postgresql://u:p%@h/", "postgresql://h:p/"]
)
def test_what_libpq_cannot_read_is_refused_without_its_words(url):
    """They quote what they are about, and that may be part of a password."""
    assert refused(url).path == "postgresql://…"


@given(PASSWORDS)
@example("12345/secret")
@example("secret:@postgresql://")
def test_a_password_reaches_libpq_and_nobody_else(password):
    """Of the three places where one can be given, none is told in the location or by `repr`."""
    told = quote(password, safe="")
    pool = quote(f"postgresql://bob:{told}@bouncer", safe="")
    address = Address.parse(f"postgresql://anne:{told}@db/shop?spool=x&sslpassword={told}&pool={pool}")
    assert conninfo_to_dict(address.direct)["password"] == password
    assert conninfo_to_dict(address.pooled or "")["password"] == password
    assert repr(address) == "Address('postgresql://anne@db/shop?spool=x&pool=postgresql://bob%40bouncer/')"


@given(PASSWORDS, st.sampled_from(["spool=x", "spool=X", "odd=x", "user=a@b", "spool", "sslmode=%zz"]))
@example("12?a/bcdef", "spool=x")
@example("secret/@", "spool=x")
@example("?secret", "spool=x")
@example("a?secret&secret=secret", "spool=x")
@example("#secret%", "spool=x")
@example("p?spool=secret", "spool=x")
@example("12345/secret", "spool=x")
def test_a_password_that_was_not_quoted_is_not_told_either(password, query):
    """It is read as libpq reads it, or refused; neither the message nor the location has a piece of it."""
    try:
        told = repr(Address.parse(f"postgresql://anne:{password}@db/shop?{query}"))
    except NotASpool as error:
        told = f"{error} {error!r}"
    pieces = [password, *re.split(r"[@/?&#:%]", password)]
    # A password may be a word that is always told.
    known = (
        Address.parse("postgresql://anne@db/shop?spool=x").location
        + inspect.getsource(inspect.getmodule(Address))
        + f"{NotASpool!r} {NotASpool('', '')!r} {NotASpool('', '')}"
    )
    for piece in pieces:
        if len(piece) >= 6 and piece not in known:
            assert piece not in told
