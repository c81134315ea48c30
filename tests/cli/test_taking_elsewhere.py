"""`export` and `import` of a whole spool, between stores of any kind: nothing that belongs to an entry is lost."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
from typing import TYPE_CHECKING, Any

import pytest

from helpers.stores import DUE, QUEUES, claim, enqueue, enqueue_reserved, make_store, read_data, release
from trio_multispool.model.attempts import ATTEMPTS, Attempt, Failure, History, encode_history
from trio_multispool.session import stores

if TYPE_CHECKING:
    from trio_multispool.storage.protocol import Storage

HOUR = 3600.0
HISTORY = encode_history(History("send", 1, (Attempt(1, "send", 1.7e9, "here", 7, 1.7e9, Failure("OSError", "no")),)))
LARGE = bytes(range(256)) * 4096


def everything(store: Storage) -> dict[str, Any]:
    """Return all that a spool holds, but the times of its files."""
    found: dict[str, Any] = {
        item.name: (
            item.place,
            store.read_metadata(item.place, item.name),
            read_data(store, item.name),
            item.due_at,
            store.remember_for(item.name),
            store.carrier(item.name),
            bytes(store.notes(item.name).get(ATTEMPTS, b"")),
        )
        for item in store.inventory()
    }
    return found | {name: pytest.approx(until, abs=60) for name, until in store.remembered()}


def fill(store: Storage) -> None:
    """Make one of each: with data of all sizes, waiting, tried before, and remembered."""
    enqueue(store, "send", "plain", b'{"n":1}')
    enqueue(store, "retry", "large", b"no JSON \x00", LARGE)
    enqueue(store, "failed", "later", due_at=DUE)
    trace = {"traceparent": "00-1-2-01"}
    enqueue_reserved(
        store, store.reserve("tried"), "retry", b"{}", b"", notes={ATTEMPTS: HISTORY}, carrier=trace, remember=HOUR
    )
    for name in ("done", "done-too"):
        reservation = store.reserve(name)
        store.remember(reservation, HOUR, durability=None)
        store.give_up(reservation)


@pytest.fixture
def store(spool):
    """Fill a spool in a directory, and open it."""
    with contextlib.closing(make_store(spool)) as opened:
        fill(opened)
        yield opened


def exported(multispool, *words: Any) -> bytes:
    """Export something, without a word of complaint."""
    found = multispool.here("export", *words)
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout.encode(errors="surrogateescape")


def members(archive: bytes) -> list[str]:
    """Return what is in an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        return found.getnames()


def packed(**parts: bytes) -> bytes:
    """Return an archive of one entry, `a`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for part, content in parts.items():
            info = tarfile.TarInfo(f"a/{part}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_a_spool_is_taken_to_another_store_and_back(  # noqa: PLR0913, PLR0917  # fixtures
    multispool, spool, store, opened, url, tmp_path
):
    """Names, waiting times, attempts, and what is remembered or is to be: the same there, and back in a directory."""
    there = multispool.here("import", url, given=exported(multispool, spool))
    assert (there.returncode, there.stderr) == (0, "multispool: note: 2 names are remembered\n")
    assert sorted(there.stdout.split()) == ["large", "later", "plain", "tried"]
    assert everything(opened) == everything(store)
    with contextlib.closing(make_store(tmp_path / "back")) as back:
        done = multispool.here("import", tmp_path / "back", given=exported(multispool, url))
        assert done.returncode == 0
        assert everything(back) == everything(store)


def test_an_import_of_a_whole_spool_can_be_done_again(multispool, spool, store, opened, url):
    """What is there is passed over, and told; names that are remembered already are no trouble."""
    archive = exported(multispool, spool)
    multispool.here("import", url, given=archive)
    again = multispool.here("import", url, given=archive)
    assert (again.returncode, again.stdout) == (4, "")
    assert again.stderr.count("; not imported\n") == again.stderr.count("\n") == 4
    assert everything(opened) == everything(store)


def test_what_was_done_is_not_done_again_in_the_other_store(multispool, spool, store, opened, url):
    """The name of a removed entry, and that of one that is removed there, are refused."""
    multispool.here("import", url, given=exported(multispool, spool))
    opened.delete("retry", "tried", durability=None, before_commit=lambda: None)
    for name in ("done", "tried"):
        refused = multispool.here("put", url, "send", "/dev/null", "--name", name)
        assert refused.returncode == 4


def test_of_a_queue_what_waits_and_was_tried_goes_along(multispool, spool, store, url, opened):
    """Into the queue that is named; a plain entry has two members, as in any archive."""
    archive = exported(multispool, spool, "retry")
    assert members(archive) == ["large/metadata", "large/data", "tried/metadata", "tried/about", "tried/data"]
    multispool.here("import", url, "send", given=archive)
    multispool.here("import", url, "send", given=exported(multispool, spool, "failed"))
    there, here = everything(opened), everything(store)
    assert {name: entry[1:] for name, entry in there.items()} == {
        name: entry[1:] for name, entry in here.items() if name in {"large", "tried", "later"}
    }
    assert {entry[0].queue for entry in there.values()} == {"send"}


def test_scripts_are_told_what_was_exported_and_what_was_left(multispool, spool, store):
    """What is in hand, and what was set aside, stays; a note says so."""
    claimed = claim(store, "send", "plain")
    store.quarantine(claim(store, "retry", "large"), "not to be read")
    told = json.loads(multispool.here("export", spool, "--json").stderr)
    assert told.pop("exported") == ["later", "tried"]
    assert told == {"queue": None, "checked_out": 1, "waiting": 0, "quarantined": 1, "remembered": 2}
    notes = multispool.here("export", spool).stderr.splitlines()
    assert notes == [
        "multispool: note: 1 entry is checked out, and not exported",
        "multispool: note: 1 entry is in quarantine, and not exported",
    ]
    release(store, claimed)


def test_what_is_due_by_now_does_not_wait(multispool, spool):
    """It is available at once."""
    archive = packed(metadata=b"{}", about=b'{"queue":"send","due_at":1700000000}', data=b"")
    assert multispool.here("import", spool, given=archive).stdout == "a\n"
    with contextlib.closing(make_store(spool)) as found:
        assert found.names("send") == ["a"]


REFUSED = {
    "no queue": ({}, "the archive does not tell its queue: "),
    "an unknown queue": ({"about": b'{"queue":"nosuch"}'}, "there is no queue 'nosuch'; make it"),
    "no JSON": ({"about": b"{"}, "what is told about it cannot be read"),
    "another kind of JSON": ({"about": b"[]"}, "what is told about it cannot be read"),
    "a time that cannot be": ({"about": b'{"queue":"send","due_at":1e99}'}, "what is told about it cannot be read"),
    "a time before all others": ({"about": b'{"queue":"send","remember":-1}'}, "what is told about it cannot be read"),
    "no history": ({"about": b'{"queue":"send","notes":{"attempts":7}}'}, "what is told about it cannot be read"),
    "deep JSON": ({"about": b'{"queue":' + b"[" * 1000 + b"]" * 1000 + b"}"}, "what is told about it cannot be read"),
    "too much": ({"about": b'"' + bytes(5 << 20) + b'"'}, "what is told about it cannot be read: it has 5242882 bytes"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_entry_is_refused_if_what_is_told_about_it_makes_no_sense(multispool, spool, what):
    """By name; nothing of it is left, and the rest goes on."""
    more, told = REFUSED[what]
    refused = multispool.here("import", spool, given=packed(metadata=b"{}", **more, data=b"Hello"))
    assert (refused.returncode, refused.stdout) == (5, "")
    assert refused.stderr.startswith(f"multispool: a: {told}")
    assert refused.stderr.endswith("; not imported\n")
    assert refused.stderr.count("\n") == 1
    with contextlib.closing(make_store(spool)) as found:
        assert everything(found) == {}


def test_what_is_told_about_no_entry_is_refused(multispool, spool):
    """And so is a name that is remembered until a time that cannot be."""
    for parts in ({"about": b"{}"}, {"data": b""}, {"remembered": b'{"until":1e99}'}, {"remembered": b"{}"}):
        refused = multispool.here("import", spool, given=packed(**parts))
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (5, "", 1)


def test_a_name_that_has_an_entry_there_is_not_remembered_beside_it(multispool, spool, put):
    """That is told, like a name that is taken. One that is over by now is passed over in silence."""
    put("a")
    until = json.dumps({"until": time.time() + HOUR}).encode()
    refused = multispool.here("import", spool, given=packed(remembered=until))
    assert (refused.returncode, refused.stderr.count("\n")) == (4, 1)
    over = multispool.here("import", spool, given=packed(remembered=b'{"until":1700000000}'))
    assert (over.returncode, over.stdout, over.stderr) == (0, "", "")


def test_unknown_keys_are_ignored(multispool, spool):
    """A later version may tell more, also in notes that this one does not know."""
    about = b'{"queue":"send","colour":"red","notes":{"progress":{"done":1},"later":[1]}}'
    assert multispool.here("import", spool, given=packed(metadata=b"{}", about=about, data=b"")).returncode == 0
    with contextlib.closing(make_store(spool)) as found:
        assert found.notes("a") == {}


def test_two_stores_on_a_server_are_two_spools(multispool, url, opened, spool):
    """An archive goes from one to the other; here it is a directory's, twice."""
    fill(opened)
    archive = exported(multispool, url)
    multispool.here("create", spool, *QUEUES)
    done = multispool.here("import", spool, "--new-names", "--json", given=archive)
    assert done.returncode == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(each["from"], each["queue"]) for each in found} == {
        ("plain", "send"),
        ("large", "retry"),
        ("tried", "retry"),
        ("later", "failed"),
    }
    assert not {each["name"] for each in found} & {each["from"] for each in found}
    with contextlib.closing(stores.look_at_store(str(spool))) as store:
        assert [name for name, _ in store.remembered()] == ["done", "done-too"]
