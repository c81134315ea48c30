"""What a level of durability asks of the server, and which servers cannot do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helpers.postgresql import own_server
from helpers.stores import DATA, OLD, ask_to_cancel, claim, enqueue, nothing, release, remove, replace_data, save
from trio_multispool import Durability, NotASpool
from trio_multispool.model.notes import PROGRESS
from trio_multispool.storage.postgres.store import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psycopg

    from helpers.postgresql import Server
    from trio_multispool.storage.postgres.address import Address

pytestmark = pytest.mark.postgresql

_SPY = """
    CREATE TABLE "{0}".seen (level text);
    GRANT ALL ON "{0}".seen TO PUBLIC;
    CREATE FUNCTION "{0}".spy() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO "{0}".seen VALUES (current_setting('synchronous_commit'));
            RETURN NULL;
        END
    $$;
    CREATE CONSTRAINT TRIGGER spy AFTER INSERT OR UPDATE OR DELETE ON "{0}".entry DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION "{0}".spy()"""


@pytest.fixture
def levels(admin: psycopg.Connection[Any], address: Address) -> Callable[[], set[str]]:
    """Return a function that tells with which levels the commits were made since it was last called."""
    PostgresStorage.open(address.location, ["send", "retry"], create=True).close()
    admin.execute(_SPY.format(address.schema).encode())

    def seen() -> set[str]:
        rows = admin.execute(f'DELETE FROM "{address.schema}".seen RETURNING level'.encode()).fetchall()
        return {level for (level,) in rows}

    return seen


CHANGES: dict[str, Callable[[Any, str, Any], object]] = {
    "enqueue": lambda store, name, level: enqueue(store, "send", f"new {name}", durability=level),
    "enqueue much": lambda store, name, level: enqueue(
        store, "send", f"new {name}", OLD, bytes(100_000), durability=level
    ),
    "save": lambda store, name, level: save(store, claim(store, "send", name), "retry", durability=level),
    "remove": lambda store, name, level: remove(store, claim(store, "send", name), durability=level),
    "data save": lambda store, name, level: replace_data(store, name, None, DATA, durability=level),
    "direct save": lambda store, name, level: store.replace_metadata(
        "send", name, OLD, durability=level, before_commit=nothing
    ),
    "direct remove": lambda store, name, level: store.delete("send", name, durability=level, before_commit=nothing),
}


@pytest.mark.parametrize("preset", ["on", "off", "local", "remote_apply"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_commit_is_as_durable_as_it_was_asked_to_be(address, levels, change, preset):
    """At `POWER`, at least on this server's disk, whatever is set there; at `PROCESS`, nothing is waited for."""
    url, stronger = f"{address.location}&options=-csynchronous_commit%3D{preset}", "on"
    if preset == "remote_apply":
        stronger = preset
    for level, name in ((Durability.POWER, "a"), (Durability.PROCESS, "b")):
        store = PostgresStorage.open(url, ["send", "retry"])
        enqueue(store, "send", name, durability=Durability.PROCESS)
        levels()
        CHANGES[change](store, name, level)
        seen = levels()
        assert seen <= {"off", stronger}  # a name is reserved, or an entry claimed, on the way
        assert (stronger in seen) is (level is Durability.POWER)
        store.close()


def test_a_claim_and_a_release_wait_for_no_disk(levels, address):
    """If a crash of the server undoes them, the entry is in its queue, where recovery would put it."""
    store = PostgresStorage.open(address.location, ["send", "retry"])
    enqueue(store, "send", "a")
    levels()
    release(store, claim(store, "send", "a"))
    assert levels() == {"off"}
    store.close()


def _claimed(store: Any) -> Any:
    enqueue(store, "send", "a")
    return claim(store, "send", "a")


def _asked(store: Any) -> None:
    enqueue(store, "send", "a")
    ask_to_cancel(store, "a")


AGAIN: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], object]]] = {
    "progress": (_claimed, lambda store, claimed: store.annotate(claimed, PROGRESS, b'{"done":1}')),
    "annotate": (_claimed, lambda store, claimed: store.annotate(claimed, "note", b"1")),
    "give up": (lambda store: store.reserve("b"), lambda store, reserved: store.give_up(reserved)),
    "ask to cancel": (lambda store: enqueue(store, "send", "a"), lambda store, _: ask_to_cancel(store, "a")),
    "withdraw": (_asked, lambda store, _: store.withdraw_cancellation("a")),
}
"""What prepares it, and what is done: it may be done again with the same effect."""


@pytest.mark.parametrize("change", AGAIN)
def test_what_may_be_done_again_waits_for_no_disk(levels, address, change):
    """Attempts and progress are noted all the time; a crash of the server undoes no more than a word about the work."""
    prepare, act = AGAIN[change]
    store = PostgresStorage.open(address.location, ["send", "retry"])
    prepared = prepare(store)
    levels()
    act(store, prepared)
    assert levels() == {"off"}
    store.close()


@pytest.fixture(scope="module", params=["fsync", "full_page_writes"])
def unsafe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Server]]:
    """Start a server that does not keep what it has committed."""
    near: Path = tmp_path_factory.mktemp("unsafe")
    with own_server(near, **{request.param: "off"}) as started:
        yield f"{request.param}=off", started


def test_a_server_that_keeps_nothing_is_refused_unless_its_user_says_otherwise(unsafe):
    """Power loss would undo what was acknowledged; at `PROCESS`, or where it is safe all the same, it will do."""
    setting, server = unsafe
    with pytest.raises(NotASpool, match=f"{setting}.*trust=yes"):
        PostgresStorage.open(server.url("spool"), ["send"], create=True)
    PostgresStorage.open(server.url("spool"), ["send"], create=True, durability=Durability.PROCESS).close()
    trusted = PostgresStorage.open(server.url("spool", trust="yes"), ["send"])
    assert [each for each in trusted.advice() if setting in each.what]
    assert "trust=yes" in trusted.location
    trusted.close()
