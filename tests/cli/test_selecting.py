"""`mv`, `rm` and `retry` over selections of entries."""

from __future__ import annotations

import errno
import json
import os
import time

import pytest

from helpers.spools import state_of
from helpers.stores import claim, make_store, release
from trio_multispool.cli.exits import Failure
from trio_multispool.cli.selecting import Settling, criteria_of

DAY = 86_400
EVERY_COMMAND = (["mv", "spool", "retry"], ["rm", "spool"], ["retry", "spool", "failed", "retry"])


@pytest.fixture
def filled(spool, put):
    """Fill the queue "failed": two old entries, two new ones, with different metadata; and one entry in "send"."""
    put("order-1", queue="failed", meta='{"to":"anne","attempts":3}')
    put("order-2", queue="failed", meta='{"to":"anne","attempts":1}')
    put("bill-1", queue="failed", meta='{"to":"bob","attempts":3,"urgent":true}')
    put("bill-2", queue="failed", meta="no JSON at all")
    put("other", queue="send")
    for name in ("order-1", "bill-1"):
        then = time.time() - 3 * DAY
        os.utime(spool / "failed" / name, (then, then))
    return spool


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--older-than", "2d"], {"bill-1", "order-1"}),
        (["--older-than", "4d"], set()),
        (["--name", "order-*"], {"order-1", "order-2"}),
        (["--name", "order-1", "--name", "*-2"], {"order-1", "order-2", "bill-2"}),
        (["--meta", "to=anne"], {"order-1", "order-2"}),
        (["--meta", "to=anne", "--meta", "attempts=3"], {"order-1"}),
        (["--meta", "attempts=3.0"], {"order-1", "bill-1"}),
        (["--meta", 'attempts="3"'], set()),
        (["--meta", "urgent=true"], {"bill-1"}),
        (["--meta", "urgent=1"], set()),
        (["--older-than", "2d", "--name", "order-*", "--meta", "to=anne"], {"order-1"}),
        (["--all"], {"order-1", "order-2", "bill-1", "bill-2"}),
    ],
)
def test_retry_moves_what_fits_and_leaves_the_rest(multispool, filled, options, names):
    """A dry run names exactly those, and what is done is what it said; metadata and data go along unchanged."""
    before = state_of(filled)
    told = multispool.done("retry", filled, "failed", "retry", *options, "--dry-run").splitlines()
    assert set(told[:-1]) == {f"{name}: would be moved from failed to retry" for name in names}
    counted = "1 entry" if len(names) == 1 else f"{len(names)} entries"
    assert told[-1] == f"{counted} would be moved to retry"
    assert state_of(filled) == before
    assert multispool.done("retry", filled, "failed", "retry", *options) == f"{counted} moved to retry\n"
    after = state_of(filled)
    assert after.faults() == []
    assert set(after.available["retry"]) == names
    assert after.available["retry"] | after.available["failed"] == before.available["failed"]
    assert after.data == before.data


def test_mv_and_rm_select_from_one_queue_or_from_all(multispool, filled):
    """`--from` narrows it; what is in the queue that entries are moved to is not moved."""
    assert multispool.done("mv", filled, "send", "--older-than", "2d") == "2 entries moved to send\n"
    assert state_of(filled).names("send") == ["bill-1", "order-1", "other"]
    assert multispool.done("mv", filled, "retry", "--from", "send", "--name", "*-1") == "2 entries moved to retry\n"
    found = json.loads(multispool.done("rm", filled, "--name", "o*", "--json"))
    assert sorted(found, key=lambda each: each["name"]) == [
        {"name": "order-1", "from": "retry"},
        {"name": "order-2", "from": "failed"},
        {"name": "other", "from": "send"},
    ]
    assert multispool.done("rm", filled, "--from", "failed", "--all") == "1 entry removed\n"
    assert state_of(filled).entries() == {"bill-1"}
    assert state_of(filled).faults() == []


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_nothing_is_done_to_everything_unless_it_is_asked_for(multispool, filled, command):
    """No criterion at all, also where a queue is given, is refused in words, and nothing is touched."""
    before = state_of(filled)
    options = [] if command[0] == "retry" else ["--from", "failed"]
    refused = multispool.here(*command, *options)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "multispool: say which entries: by their names, --older-than, --meta or --name, or --all for every one\n"
    )
    assert state_of(filled) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rm", "spool", "order-1", "--all"], "entries are named or selected, not both"),
        (["mv", "spool", "order-1", "send", "--older-than", "1d"], "entries are named or selected, not both"),
        (["rm", "spool", "order-1", "--from", "failed"], "entries are named or selected, not both"),
        (["rm", "spool", "--all", "--older-than", "1d"], "--all and what selects some entries exclude each other"),
        (["rm", "spool", "--older-than", "1 day"], "not a duration: '1 day'; write 90, 10m, 1h30m or 2d"),
        (["rm", "spool", "--meta", "anne"], "--meta wants key=value, not 'anne'"),
        (["mv", "spool", "send", "--from", "send", "--all"], "the two queues are the same: 'send'"),
        (["retry", "spool", "send", "send", "--all"], "the two queues are the same: 'send'"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage(multispool, filled, words, message):
    """Exit code 2, one line, and nothing is touched."""
    before = state_of(filled)
    refused = multispool.here(*words)
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", f"multispool: {message}\n")
    assert state_of(filled) == before


@pytest.mark.parametrize("words", [["retry", "nosuch", "send"], ["mv", "send", "--from", "nosuch"]])
def test_a_queue_that_does_not_exist_is_not_found(multispool, spool, words):
    """Exit code 3, naming those that do, whichever of the two it is."""
    refused = multispool.here(words[0], spool, *words[1:], "--all")
    assert refused.returncode == 3
    assert refused.stderr == f"multispool: there is no queue 'nosuch' in '{spool}'; it has: failed, retry, send\n"


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_what_workers_have_is_passed_over(multispool, filled, command):
    """It is theirs; all others are settled, and that is no failure."""
    store = make_store(filled)
    claimed = claim(store, "failed", "order-1")
    done = multispool.done(*command, "--name", "order-*")
    assert done.startswith("1 entry ")
    assert state_of(filled).places("order-1") == ["failed/.checkout"]
    release(store, claimed)
    store.close()


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["done", "dry run"])
@pytest.mark.parametrize(("call", "code"), [("open", errno.EACCES), ("read", errno.EIO)])
@pytest.mark.parametrize("command", [*EVERY_COMMAND, ["quarantine", "retry", "spool"], ["quarantine", "drop", "spool"]])
def test_metadata_that_cannot_be_read_keep_no_other_entry_from_being_selected(  # noqa: PLR0913, PLR0917  # fixtures
    multispool, filled, set_aside, failing, command, call, code, dry_run
):
    """That entry is left and told, whose metadata may fit or not; and the exit code says that something failed."""
    directory = "failed"
    if command[0] == "quarantine":
        directory = ".quarantine/send"
        for name in ("order-3", "order-4"):
            set_aside(name)
    names = sorted(os.listdir(filled / directory) if command[0] == "quarantine" else ["order-1", "order-2"])
    with failing.failing(call, code, f"/{directory}/{names[0]}"):
        ended = multispool.here(*command, "--name", "order-*", "--meta", "to=anne", "--json", *dry_run)
    queue = directory.rpartition("/")[2]
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"multispool: entry {names[0]!r} of queue {queue!r} cannot be read: ")
    assert ended.stderr.count("\n") == 1
    assert [(each["name"], each["from"]) for each in json.loads(ended.stdout)] == [(names[1], queue)]
    left = {name for name in names if (filled / directory / name).exists()}
    assert left == ({*names} if dry_run else {names[0]})


def test_what_changes_before_it_is_checked_out_has_to_fit_still(multispool, filled, monkeypatch):
    """Between the look and the lock, its owner may have changed it: then it stays, with what was changed."""
    from trio_multispool.cli import checkouts, main

    chosen = checkouts.selected

    def changed_after_the_look(*arguments):
        for item in chosen(*arguments):
            path = filled / "failed" / item.name
            if item.name == "order-1":
                path.write_text('{"to":"bob"}')
                os.utime(path, (then, then))  # so that only its metadata do not fit
            elif item.name == "order-2":
                path.touch()
            yield item

    then = time.time() - 3 * DAY
    os.utime(filled / "failed/order-2", (then, then))
    monkeypatch.setattr(checkouts, "selected", changed_after_the_look)
    assert main(["rm", str(filled), "--meta", "to=anne", "--older-than", "1d"]) == 0
    state = state_of(filled)
    assert state.names("failed") == ["bill-1", "bill-2", "order-1", "order-2"]
    assert state.faults() == []


def test_retry_of_named_entries_takes_them_from_their_queue_only(multispool, filled):
    """A name that is elsewhere is not found; the others are moved, and nothing more is said."""
    found = multispool("retry", filled, "failed", "send", "order-1", "other", "nosuch")
    assert (found.returncode, found.stdout) == (3, "")
    assert found.stderr == (
        "multispool: entry 'other' is of 'send', not of 'failed'\n"
        f"multispool: there is no entry 'nosuch' in '{filled}'\n"
    )
    assert state_of(filled).places("order-1") == ["send"]


@pytest.mark.parametrize("command", ["mv", "rm"])
def test_a_dry_run_of_names_tells_what_would_be_done(multispool, filled, snapshot, command):
    """Also what would fail, with the exit code that it would have; nothing is locked or touched."""
    before = snapshot(filled)
    destination = ["send"] if command == "mv" else []
    found = multispool(command, filled, "order-1", "nosuch", *destination, "-n")
    assert found.returncode == 3
    assert (
        found.stdout == f"order-1: would be {'moved from failed to send' if destination else 'removed from failed'}\n"
    )
    assert found.stderr == f"multispool: there is no entry 'nosuch' in '{filled}'\n"
    told = json.loads(multispool.done(command, filled, "order-1", *destination, "-n", "--json"))
    assert told == [{"name": "order-1", "from": "failed"} | ({"to": "send"} if destination else {})]
    assert snapshot(filled) == before


def test_many_are_settled_at_once(multispool, spool, put):
    """More than are in hand at a time, each exactly once."""
    for number in range(200):
        put(f"{number:03}", queue="failed")
    assert multispool.done("retry", spool, "failed", "send", "--all") == "200 entries moved to send\n"
    assert state_of(spool).names("send") == [f"{number:03}" for number in range(200)]
    assert len(json.loads(multispool.done("rm", spool, "--from", "send", "--name", "1*", "--json"))) == 100
    assert state_of(spool).faults() == []


@pytest.mark.parametrize(
    ("raw", "pair", "fits"),
    [
        (b'{"a":0.10}', "a=0.1", True),
        (b'{"a":[1,true]}', "a=[1,true]", True),
        (b'{"a":[1,true]}', "a=[1,1]", False),
        (b'{"a":{"b":1,"c":2}}', 'a={"c":2,"b":1}', True),
        (b'{"a":{"b":1}}', 'a={"b":true}', False),
        (b'{"a":null}', "a=null", True),
        (b"{}", "a=null", False),
        (b'["a"]', "a=null", False),
        (b"[" * 100_000, "a=1", False),
        (b"\xff", "a=1", False),
    ],
)
def test_metadata_are_compared_as_json_values(raw, pair, fits):
    """As numbers, truth values and structures, never as text; what is no JSON object fits nothing."""
    criteria = criteria_of(Settling(meta=[pair]), [])
    assert criteria is not None
    assert criteria.fit_metadata(raw) is fits


def test_a_selection_of_nothing_is_no_selection():
    """It is refused here already, whatever a command makes of its options."""
    for selection in (Settling(), Settling(meta=[], name=[])):
        with pytest.raises(Failure, match="say which entries"):
            criteria_of(selection, [])
