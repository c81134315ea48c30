"""The suite for any store, by a role that may do no more than it must, and through a pooler of transactions.

The tests are those of `test_storage_protocol.py`; `kind` says how the store is opened here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest

from helpers import postgresql
from helpers.bouncers import bouncer
from helpers.conformance import letting_go_at_once
from helpers.finding import Aside
from helpers.proofs import thinned
from helpers.stores import DATA, QUEUES, claim, enqueue, read_data, remove
from trio_multispool import AccessDenied, NotASpool
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.conformance import Kind

pytestmark = [pytest.mark.postgresql, pytest.mark.proof]

RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
PASSWORD = "not a secret"


def _suite() -> dict[str, Any]:
    """Return what the suite is made of: its tests, or a part of them, and what they use."""
    specification = importlib.util.spec_from_file_location(
        "suite_of_stores", Path(__file__).parents[1] / "test_storage_protocol.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    tests = [name for name in vars(module) if name.startswith("test_")]
    left_out = set(tests) - set(thinned(tests, 10))
    return {name: value for name, value in vars(module).items() if not name.startswith("__") and name not in left_out}


globals().update({name: value for name, value in _suite().items() if name not in globals()})


@pytest.fixture(scope="module")
def pooler() -> Iterator[str]:
    """Start a pooler of transactions before the server; return its place."""
    with bouncer(postgresql.server()) as place:
        yield place


class Role:
    """A role of the server that may use the tables of a spool, and make none."""

    name = f"multispool_tests_{os.getpid()}"

    def __init__(self, administrator: psycopg.Connection[Any]) -> None:
        """Make it."""
        self._administrator = administrator
        self.forget()
        administrator.execute(f"CREATE ROLE {self.name} LOGIN PASSWORD '{PASSWORD}'".encode())

    def forget(self) -> None:
        """Remove it, if it is there."""
        if self._administrator.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (self.name,)).fetchone():
            self._administrator.execute(f"DROP OWNED BY {self.name}; DROP ROLE {self.name}".encode())

    def opens(self, url: str) -> str:
        """Return the URL of a spool as it is opened by this role."""
        parts = urllib.parse.urlsplit(url)
        where = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{self.name}:{urllib.parse.quote(PASSWORD)}@{where}").geturl()

    def may_use(self, url: str) -> str:
        """Let it use a spool; return its URL."""
        schema = postgresql.name_of(url)
        for right in (f'USAGE ON SCHEMA "{schema}"', f'{RIGHTS} ON ALL TABLES IN SCHEMA "{schema}"'):
            self._administrator.execute(f"GRANT {right} TO {self.name}".encode())
        return self.opens(url)


@pytest.fixture(scope="module")
def role() -> Iterator[Role]:
    """Make a role."""
    with psycopg.connect(postgresql.server().base, autocommit=True) as administrator:
        made = Role(administrator)
        yield made
        made.forget()


@pytest.fixture(params=["role", "pooler"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Say how a handle on the store is opened."""
    way = request.getfixturevalue(request.param)

    def store(_tmp_path: Path, clock: Callable[[], float]) -> Callable[[], Any]:
        url = postgresql.new_spool()
        if request.param == "role":
            PostgresStorage.open(url, QUEUES, create=True).close()
            url = way.may_use(url)
        else:
            url = f"{url}&pool={way}"
        return lambda: letting_go_at_once(PostgresStorage.open(url, QUEUES, create=True, now=clock))

    return cast("Kind", store)


def test_a_role_that_may_make_nothing_is_told_who_can_and_how(role):
    """An administrator makes the spool, with what the command prints; then the role needs no more than it was given."""
    url = postgresql.new_spool()
    with pytest.raises(AccessDenied, match="multispool sql 'postgresql://") as caught:
        PostgresStorage.open(role.opens(url), QUEUES, create=True)
    assert PASSWORD not in str(caught.value)
    PostgresStorage.open(url, QUEUES, create=True).close()
    with pytest.raises(AccessDenied, match="grant its role USAGE"):
        PostgresStorage.open(role.opens(url), QUEUES)
    with contextlib.closing(PostgresStorage.open(role.may_use(url), QUEUES)) as storage:
        enqueue(storage, "send", "a")
        remove(storage, claim(storage, "send", "a"))
        assert list(storage.recover_all()) == []


def test_a_pooler_in_place_of_the_server_is_refused_with_the_way_to_use_one(pooler):
    """Sessions that say who lives cannot be lent: not if it refuses what it does not know, nor if it lets that pass."""
    server = postgresql.server()
    parts = urllib.parse.urlsplit(postgresql.new_spool())
    user = parts.netloc.rpartition("@")[0]
    with bouncer(server, "ignore_startup_parameters = options,extra_float_digits") as lenient:
        for place in (pooler, lenient):
            with pytest.raises(NotASpool, match=r"a pooler answers there.*\?pool=HOST:PORT"):
                PostgresStorage.open(parts._replace(netloc=f"{user}@{place}").geturl(), QUEUES, create=True)


def test_many_threads_share_what_a_pooler_lends(pooler):
    """A server's connection serves another client after each transaction; nothing of one is seen by the other."""
    url = f"{postgresql.new_spool()}&pool={pooler}"
    rounds, threads = 20, 4

    def work(storage: PostgresStorage, number: int) -> None:
        for turn in range(rounds):
            name = f"{number}.{turn}"
            enqueue(storage, "send", name, data=DATA * (turn + 1))
            claimed = claim(storage, "send", name)
            assert read_data(storage, name) == DATA * (turn + 1)
            remove(storage, claimed)

    with (
        contextlib.closing(PostgresStorage.open(url, QUEUES, create=True)) as one,
        contextlib.closing(PostgresStorage.open(url, QUEUES)) as two,
    ):
        enqueue(one, "retry", "held")
        held = claim(one, "retry", "held")
        working = [Aside(lambda at=at, n=n: work(at, n)) for n, at in enumerate([one, two] * threads)]
        for each in working:
            each.result()
        assert two.recover() == []
        remove(one, held)
        assert one.count() == sum(two.depths().values()) == 0
