"""`multispool quarantine`: what was set aside is looked at, put back, or dropped."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from helpers.spools import state_of
from helpers.stores import make_store

REASON = "metadata of entry 'odd' cannot be decoded"


def test_ls_lists_what_was_set_aside_with_its_reason(multispool, spool, put, set_aside):
    """By queue and name, also of a queue alone; what is not in quarantine is not listed."""
    put("one")
    assert multispool.done("quarantine", "ls", spool) == "nothing is in quarantine\n"
    set_aside("odd", REASON)
    set_aside("even", "two\nlines \x1b[31m", queue="failed")
    for path in (spool / ".quarantine/send/odd", spool / ".quarantine/failed/even"):
        then = path.stat().st_mtime - 7200
        os.utime(path, (then, then))
    assert multispool.done("quarantine", "ls", spool) == (
        f"NAME  QUEUE   AGE  REASON\neven  failed   2h  two\\nlines \\x1b[31m\nodd   send     2h  {REASON}\n"
    )
    assert multispool.done("quarantine", "ls", spool, "send") == (
        f"NAME  QUEUE  AGE  REASON\nodd   send    2h  {REASON}\n"
    )
    [found] = json.loads(multispool.done("quarantine", "ls", spool, "send", "--json"))
    assert 7200 <= found.pop("age") < 10_000
    assert found.pop("modified_at").endswith("Z")
    assert found == {
        "name": "odd",
        "queue": "send",
        "state": "quarantined",
        "owner": None,
        "metadata_size": 13,
        "due_at": None,
        "progress": None,
        "cancellation": None,
        "quarantine_reason": REASON,
    }


def test_show_shows_what_was_set_aside_and_nothing_else(multispool, spool, put, set_aside, snapshot):
    """Its reason, metadata and data; of any other entry it says where that is."""
    set_aside("odd", REASON, meta='{"to":3}')
    put("one")
    before = snapshot(spool)
    shown = multispool.done("quarantine", "show", spool, "odd")
    assert f"reason    {REASON}\n" in shown
    assert shown.endswith('{\n  "to": 3\n}\n')
    found = json.loads(multispool.done("quarantine", "show", spool, "odd", "--json"))
    assert (found["quarantine_reason"], found["metadata"], found["data_size"]) == (REASON, {"to": 3}, 5)
    refused = multispool.here("quarantine", "show", spool, "one")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr == "multispool: entry 'one' is not in quarantine: it is available, in 'send'\n"
    assert snapshot(spool) == before


def test_retry_puts_back_what_is_named(multispool, spool, put, set_aside):
    """Into its queue, as it was; what is not in quarantine is said, and does not keep the others."""
    set_aside("odd", meta='{"to":3}', data="kept")
    put("one")
    done = multispool("quarantine", "retry", spool, "nosuch", "one", "odd")
    assert done.returncode == 3
    assert done.stdout == "odd: is back in send\n"
    assert done.stderr == (
        f"multispool: there is no entry 'nosuch' in '{spool}'\n"
        "multispool: entry 'one' is not in quarantine: it is available, in 'send'\n"
    )
    state = state_of(spool)
    assert state.available["send"]["odd"] == b'{"to":3}'
    assert (state.data["odd"], state.reasons, state.faults()) == (b"kept", {}, [])
    assert multispool.done("quarantine", "retry", spool, "--all") == "nothing to put back\n"


def test_retry_can_put_back_into_another_queue(multispool, spool, set_aside):
    """`--to`; a queue that does not exist is said, once for each, and the entry stays."""
    set_aside("odd")
    refused = multispool.here("quarantine", "retry", spool, "odd", "--to", "nosuch")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr == f"multispool: there is no queue 'nosuch' in '{spool}'; it has: failed, retry, send\n"
    assert state_of(spool).places("odd") == [".quarantine/send"]
    found = json.loads(multispool.done("quarantine", "retry", spool, "odd", "--to", "failed", "--json"))
    assert found == [{"name": "odd", "from": "send", "to": "failed"}]
    assert state_of(spool).places("odd") == ["failed"]


def test_drop_removes_an_entry_with_all_that_belongs_to_it(multispool, spool, set_aside):
    """Nothing of it is left, and the others stay; `--json` tells which."""
    for name in ("a", "b", "c"):
        set_aside(name)
    assert multispool.done("quarantine", "drop", spool, "a") == "a: was dropped\n"
    assert json.loads(multispool.done("quarantine", "drop", spool, "b", "--json")) == [{"name": "b", "from": "send"}]
    state = state_of(spool)
    assert (state.entries(), set(state.data), state.registry, set(state.reasons)) == ({"c"}, {"c"}, {"c"}, {"c"})


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--all"], {"a", "b", "c"}),
        (["--from", "send", "--all"], {"a", "b"}),
        (["--name", "[bc]"], {"b", "c"}),
        (["--meta", "to=3"], {"a", "c"}),
        (["--older-than", "1h"], {"b"}),
    ],
)
@pytest.mark.parametrize("command", ["retry", "drop"])
def test_what_is_selected_is_what_a_dry_run_says(multispool, spool, put, set_aside, snapshot, command, options, names):  # noqa: PLR0913, PLR0917  # fixtures
    """The dry run changes nothing, and names exactly those that are then put back or dropped."""
    set_aside("a", meta='{"to":3}')
    set_aside("b", meta="nonsense")
    set_aside("c", meta='{"to":3}', queue="failed")
    put("waiting", meta='{"to":3}')
    then = os.stat(spool / ".quarantine/send/b").st_mtime - 7200
    os.utime(spool / ".quarantine/send/b", (then, then))
    before = snapshot(spool)
    told = multispool.done("quarantine", command, spool, *options, "--dry-run").splitlines()
    queues = {"a": "send", "b": "send", "c": "failed"}
    would = "would go back to {}" if command == "retry" else "would be dropped"
    assert set(told) == {f"{name}: {would.format(queues[name])}" for name in names}
    assert snapshot(spool) == before
    found = json.loads(multispool.done("quarantine", command, spool, *options, "--json"))
    assert {each["name"] for each in found} == names
    state = state_of(spool)
    assert state.faults() == []
    left = {name for aside in state.quarantined.values() for name in aside}
    assert left == {"a", "b", "c"} - names
    back = names if command == "retry" else set()
    assert state.entries() == {"waiting"} | left | back


@pytest.mark.parametrize("command", ["retry", "drop"])
def test_nothing_is_done_to_all_of_the_quarantine_unless_it_is_asked_for(multispool, spool, set_aside, command):
    """Neither by leaving everything out nor by naming a queue."""
    set_aside("odd")
    for options in ([], ["--from", "send"]):
        refused = multispool.here("quarantine", command, spool, *options)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("multispool: say which entries: ")
    assert multispool("quarantine", command, spool, "odd", "--all").returncode == 2
    assert state_of(spool).places("odd") == [".quarantine/send"]


@pytest.mark.parametrize("command", ["retry", "drop"])
def test_an_entry_that_somebody_is_at_is_busy(multispool, spool, set_aside, command):
    """The lock decides; exit code 4, and the other has its way."""
    set_aside("odd")
    store = make_store(spool)
    found = []

    def meanwhile():
        found.append(multispool("quarantine", command, spool, "odd"))

    store.restore("send", "odd", durability=None, before_commit=meanwhile)
    store.close()
    assert found[0].returncode == 4
    assert found[0].stdout == ""
    assert found[0].stderr.count("\n") == 1
    assert "'odd'" in found[0].stderr
    assert state_of(spool).places("odd") == ["send"]


def test_what_a_worker_that_cannot_read_sets_aside_goes_all_the_way(multispool, spool, put, set_aside):
    """Set aside, put back, worked off: the data is what it was from the first to the last."""
    set_aside("odd", data="dear")
    multispool.done("quarantine", "retry", spool, "odd")
    done = multispool("work", spool, "send", "--once", "--", "cat")
    assert (done.returncode, done.stdout) == (0, "dear")
    assert state_of(spool).entries() == set()


@pytest.mark.parametrize("columns", [80, 200])
def test_a_list_of_what_was_set_aside_survives_any_terminal(multispool, spool, set_aside, columns):
    """Names and reasons are folded, and never cut off."""
    name = set_aside("".join(chr(ord("a") + number % 26) for number in range(100)), "word " * 40)
    code, shown = multispool.on_terminal("quarantine", "ls", "spool", columns=columns)
    assert code == 0
    assert "…" not in shown
    lines = [line.replace("\x1b[0m", "").replace("\x1b[1m", "") for line in shown.split("\r\n")]
    assert max(map(len, lines)) <= columns
    assert "".join(line.split(" ")[0] for line in lines[1:]).startswith(name)
    assert shown.count("word") == 40


def test_a_closed_pipe_ends_it_quietly(multispool, spool, set_aside):
    """Not a word, and the exit code of a broken pipe."""
    set_aside("odd")
    for arguments in (
        ["quarantine", "ls", spool],
        ["stats", spool],
        ["ls", spool, "--ages"],
        ["rm", spool, "--all", "-n"],
    ):
        reading, writing = os.pipe()
        os.close(reading)
        ended = multispool(*arguments, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    "words", [["ls", "sned"], ["retry", "--from", "sned", "--all"], ["drop", "--from", "sned", "--all"]]
)
def test_a_queue_that_does_not_exist_is_not_one_from_which_nothing_was_set_aside(multispool, spool, words):
    """A typing error is told, with the queue that was probably meant."""
    command, *rest = words
    refused = multispool.here("quarantine", command, spool, *rest)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.endswith("it has: failed, retry, send; did you mean 'send'?\n")


def test_what_was_set_aside_from_a_queue_that_was_removed_is_still_to_be_had(multispool, spool, set_aside):
    """It is listed, and dropped."""
    set_aside("one")
    (spool / "send" / ".checkout").rmdir()
    (spool / "send").rmdir()
    assert "one" in multispool.done("quarantine", "ls", spool, "send")
    assert multispool.done("quarantine", "drop", spool, "--from", "send", "--all") == "one: was dropped\n"
