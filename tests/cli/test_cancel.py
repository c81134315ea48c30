"""`multispool cancel`, and what `work`, `show` and `ls` make of it."""

from __future__ import annotations

import datetime
import json
import os
import signal
import time

import pytest

from helpers.spools import state_of
from helpers.stores import claim, make_store

TRY = ["--attempts", "3", "--failed", "failed"]
WAYS = pytest.mark.parametrize("more", [[], TRY], ids=["", "attempts"])


def asked_by(owner):
    """Return how the owner of an entry is told."""
    return "its owner" if owner is None else f"its owner, {owner['command']}[{owner['pid']}],"


def worker_with_one(multispool, spool, gate, *more):
    """Start a worker, and return it when its command has begun."""
    worker = multispool.start("work", spool, "send", *more, "--", *gate.command())
    gate.wait_begun()
    return worker


def line_of(process):
    """Return the next line that a process writes to standard error."""
    assert process.stderr is not None
    return process.stderr.readline()


# The command


def test_what_nobody_has_is_removed(multispool, spool, put):
    """From whatever queue, also what waits; JSON says it to scripts; all others stay."""
    put("a")
    put("b", queue="failed")
    put("c")
    multispool.done("put", spool, "retry", "/dev/null", "--name", "d", "--delay", "1h")
    assert multispool.done("cancel", spool, "a", "b") == "a: removed from send\nb: removed from failed\n"
    found = json.loads(multispool.done("cancel", spool, "d", "--json"))
    assert found == [{"name": "d", "from": "retry", "outcome": "removed", "owner": None}]
    for directory in ("send", ".data", ".registry"):
        assert [path.name for path in (spool / directory).iterdir() if path.is_file()] == ["c"]


def test_the_owner_of_what_is_in_hand_is_asked(multispool, spool, put, gate, owner_of):
    """It is named, the entry goes, and the worker goes on with the next."""
    for name in "abc":
        put(name)
    worker = worker_with_one(multispool, spool, gate)
    owner = owner_of(worker)
    said = multispool.done("cancel", spool, "b", "a", "--reason", "no longer wanted")
    assert said == f"b: removed from send\na: {asked_by(owner)} was asked to end the work on it\n"
    assert line_of(worker) == "multispool: a: cancelled (no longer wanted)\n"
    gate.wait_begun()
    found = json.loads(multispool.done("cancel", spool, "c", "--json"))
    assert found == [{"name": "c", "from": "send", "outcome": "asked", "owner": owner}]
    assert line_of(worker) == "multispool: c: cancelled (no reason was given)\n"
    assert state_of(spool).names("send") == []


def test_what_is_missing_or_cannot_be_does_not_keep_the_others(multispool, spool, put, set_aside):
    """All are tried; the exit code is that of the first that failed, and messages are those of `rm`."""
    put("a")
    set_aside("odd")
    found = multispool("cancel", spool, "nosuch", "odd", "send", "a/b", "a")
    assert (found.returncode, found.stdout) == (3, "a: removed from send\n")
    assert found.stderr.splitlines()[:3] == [
        f"multispool: there is no entry 'nosuch' in '{spool}'",
        "multispool: entry 'odd' is in quarantine; `multispool show` says why it was set aside",
        f"multispool: there is no entry 'send' in '{spool}'; it is a queue, which `multispool ls` shows",
    ]
    assert "'a/b'" in found.stderr.splitlines()[3]
    assert multispool.here("cancel", spool, "odd").returncode == 5
    refused = multispool.here("cancel", spool)
    assert refused.returncode == 2
    assert refused.stderr.startswith("multispool: say which entries: by their names")
    refused = multispool.here("cancel", spool / "send" / "a")
    assert refused.stderr.endswith(f"did you mean: multispool cancel {spool} a\n")


def test_what_is_locked_all_the_time_is_busy(multispool, spool, put):
    """Exit code 4, after a second; it stays."""
    put("a")
    put("b")
    store = make_store(spool)
    claimed = claim(store, "send", "a")
    os.rename(spool / "send/.checkout/a", spool / "send/a")  # locked, and in nobody's hand
    found = multispool("cancel", spool, "a", "b")
    assert (found.returncode, found.stdout) == (4, "b: removed from send\n")
    assert found.stderr.startswith("multispool: entry 'a' is")
    assert (spool / "send/a").exists()
    claimed.abandon()
    store.close()


def test_in_a_spool_that_is_not_adopted_nobody_can_be_asked(multispool, spool, put):
    """Its programs need not know of it: exit code 5. What is available is removed all the same."""
    put("a")
    put("b")
    (spool / "send/.checkout").mkdir(exist_ok=True)
    os.rename(spool / "send/a", spool / "send/.checkout/a")
    (spool / ".spool.json").unlink()
    found = multispool("cancel", spool, "a", "b")
    assert (found.returncode, found.stdout) == (5, "b: removed from send\n")
    assert "because it has no .spool.json" in found.stderr


def test_what_a_dead_process_had_is_removed(multispool, spool, dead):
    """There is nobody to ask."""
    assert multispool.done("cancel", spool, dead) == "dead: removed from retry\n"
    assert state_of(spool).places(dead) == []


def test_a_selection_takes_what_fits_wherever_it_is(multispool, spool, put, gate):
    """Available, waiting and in hand; of one queue, or of all; and the sum is told."""
    put("a")
    put("b", meta='{"to":"bob"}')
    put("c", queue="retry")
    multispool.done("put", spool, "send", "/dev/null", "--name", "d", "--delay", "1h", "--meta", "to=anne")
    worker = worker_with_one(multispool, spool, gate)
    shown = multispool.done("cancel", spool, "--from", "send", "--meta", "to=anne", "--dry-run")
    assert shown.splitlines()[0] == "d: would be removed from send"
    assert shown.splitlines()[1].startswith("a: its owner")
    assert shown.splitlines()[1].endswith(" would be asked to end the work on it")
    assert shown.splitlines()[2:] == ["2 entries would be cancelled"]
    assert state_of(spool).names("send") == ["b"]
    done = multispool.done("cancel", spool, "--from", "send", "--meta", "to=anne", "--reason", "bankrupt")
    assert done == shown.replace("would be cancelled", "cancelled").replace("would be", "was").replace("d: was ", "d: ")
    assert line_of(worker) == "multispool: a: cancelled (bankrupt)\n"
    gate.wait_begun()
    assert sorted(state_of(spool).places("b")) == ["send/.checkout"]
    assert state_of(spool).names("retry") == ["c"]


def test_only_what_is_in_hand_can_be_selected(multispool, spool, put, gate):
    """What an operator asks for at night: all work of this queue that goes on for too long."""
    for name in "abc":
        put(name)
    then = time.time() - 7200
    for name in "ab":
        os.utime(spool / "send" / name, (then, then))
    worker = worker_with_one(multispool, spool, gate)
    select = ("--from", "send", "--in-hand", "--older-than", "1h", "--json")
    told = json.loads(multispool.done("cancel", spool, *select))
    assert [(each["name"], each["outcome"]) for each in told] == [("a", "asked")]
    assert line_of(worker) == "multispool: a: cancelled (no reason was given)\n"
    gate.wait_begun()
    assert state_of(spool).names("send") == ["c"]


@pytest.mark.parametrize("option", ["--in-hand", "--from=send", "--all", "--older-than=1"])
def test_entries_are_named_or_selected(multispool, spool, put, option):
    """Not both; exit code 2, and nothing is done."""
    put("a")
    refused = multispool.here("cancel", spool, "a", option)
    assert (refused.returncode, refused.stderr) == (2, "multispool: entries are named or selected, not both\n")
    assert state_of(spool).names("send") == ["a"]


def test_what_moves_on_after_it_was_selected_is_passed_over(multispool, spool, put, monkeypatch):
    """It was chosen for the queue that it was in, or for its metadata."""
    from trio_multispool.cli.commands import cancel

    chosen = cancel.selected

    def changed_after_the_look(*arguments):
        for item in chosen(*arguments):
            if item is not None and item.name == "moved":
                os.rename(spool / "send/moved", spool / "failed/moved")
            elif item is not None and item.name == "changed":
                (spool / "send/changed").write_text("{}")
                os.utime(spool / "send/changed", (1, 1))
            elif item is not None and item.name == "gone":
                (spool / "send/gone").unlink()
            yield item

    for name in ("moved", "changed", "gone", "one"):
        put(name)
    monkeypatch.setattr(cancel, "selected", changed_after_the_look)
    done = multispool.here("cancel", spool, "--from", "send", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "one: removed from send\n1 entry cancelled\n"
    assert [state_of(spool).places(name) for name in ("moved", "changed")] == [["failed"], ["send"]]


def test_a_dry_run_of_names_changes_nothing(multispool, spool, put, snapshot):
    """Also what would fail is told, with its exit code."""
    put("a")
    before = snapshot(spool)
    found = multispool("cancel", spool, "a", "nosuch", "-n")
    assert (found.returncode, found.stdout) == (3, "a: would be removed from send\n")
    assert found.stderr == f"multispool: there is no entry 'nosuch' in '{spool}'\n"
    assert json.loads(multispool.done("cancel", spool, "a", "-n", "--json"))[0]["outcome"] == "removed"
    assert snapshot(spool) == before


# Work


@WAYS
def test_a_cancelled_command_is_ended_and_its_entry_moved(multispool, spool, put, gate, more):
    """To `--cancelled`, where its history says why; no process runs on, and nothing of the request is left."""
    put("one")
    worker = multispool.start("work", spool, "send", *more, "--cancelled", "retry", "--", *gate.command())
    command = gate.wait_begun()
    multispool.done("cancel", spool, "one", "--reason", "no longer")
    assert line_of(worker) == "multispool: one: cancelled (no longer), now in retry\n"
    assert not os.path.exists(f"/proc/{command}")
    shown = json.loads(multispool.done("show", spool, "one", "--json"))
    assert (shown["queue"], shown["state"], shown["cancellation"]) == ("retry", "available", None)
    failure = shown["history"]["attempts"][-1]["failure"]
    assert (failure["type"], failure["message"]) == ("Cancelled", "no longer")
    assert "attempts  1, cancelled\n" in multispool.done("show", spool, "one")
    worker.terminate()
    assert worker.communicate()[1] == "multispool: done 0, failed 0, cancelled 1\n"


@WAYS
def test_a_cancelled_entry_is_removed_by_default(multispool, spool, put, gate, more):
    """The line for scripts says why; with `--once`, that is no failure."""
    put("one")
    worker = worker_with_one(multispool, spool, gate, *more, "--once", "--json")
    multispool.done("cancel", spool, "one", "--reason", "no longer")
    told, summary = map(json.loads, worker.communicate()[1].splitlines())
    assert told == {"name": "one", "outcome": "cancelled", "status": None, "queue": None, "reason": "no longer"}
    assert summary == {"done": 0, "failed": 0, "returned": 0, "cancelled": 1}
    assert worker.returncode == 0
    assert [*spool.rglob("one")] == []


@WAYS
def test_a_command_that_ignores_sigterm_is_killed(multispool, spool, put, gate, more):
    """After its grace; then the entry is removed."""
    put("one")
    worker = multispool.start("work", spool, "send", *more, "--", *gate.command(before="trap '' TERM"))
    command = gate.wait_begun()
    multispool.done("cancel", spool, "one")
    shown = multispool.done("show", spool, "one")
    assert "(no reason was given)" not in shown
    assert "no reason was given\n" in shown
    assert line_of(worker) == "multispool: one: cancelled (no reason was given)\n"
    assert not os.path.exists(f"/proc/{command}")


@WAYS
def test_of_several_only_the_one_is_ended(multispool, spool, put, gate, more):
    """The others come to their own end."""
    put("one")
    put("two")
    worker = multispool.start("work", spool, "send", *more, "--once", "-j", "2", "--", *gate.command())
    gate.wait_begun()
    gate.wait_begun()
    multispool.done("cancel", spool, "one")
    assert line_of(worker) == "multispool: one: cancelled (no reason was given)\n"
    gate.let_go()
    assert worker.communicate()[1] == "multispool: two: done\nmultispool: done 1, failed 0, cancelled 1\n"


@WAYS
def test_a_signal_after_a_request_cancels_all_the_same(multispool, spool, put, gate, more):
    """What was asked for is done; the other entry goes back."""
    put("one")
    put("two")
    tidying = f"trap 'echo $$ > {gate.begun}; read line < {gate.go}; exit' TERM; echo $$ > {gate.begun}"
    command = ["sh", "-c", f"{tidying}; while :; do sleep 0.1; done"]
    worker = multispool.start("work", spool, "send", *more, "-j", "2", "--", *command)
    begun = {gate.wait_begun(), gate.wait_begun()}
    multispool.done("cancel", spool, "one", "--reason", "x")
    assert gate.wait_begun() in begun  # it tidies up
    worker.send_signal(signal.SIGTERM)
    assert gate.wait_begun() in begun  # so does the other
    gate.let_go()
    gate.let_go()
    told = [line for line in worker.communicate()[1].splitlines() if line != "Terminated"]  # by the shell, of `sleep`
    assert sorted(told[:2]) == ["multispool: one: cancelled (x)", "multispool: two: returned to send"]
    assert told[2:] == ["multispool: done 0, failed 0, returned 1, cancelled 1"]
    assert worker.returncode == 128 + signal.SIGTERM
    assert state_of(spool).names("send") == ["two"]


def test_what_is_kept_after_a_failure_can_be_cancelled(multispool, spool, put):
    """It does not go back."""
    put("one")
    worker = multispool.start("work", spool, "send", "--retry-delay", "1h", "--", "false")
    assert line_of(worker) == "multispool: one: failed (exit status 1), now in send\n"
    multispool.done("cancel", spool, "one", "--reason", "x")
    assert line_of(worker) == "multispool: one: cancelled (x)\n"
    assert [*spool.rglob("one")] == []


def test_a_request_that_outlives_its_worker_is_for_the_next(multispool, spool, put, gate):
    """The first is killed before it can hear of it."""
    put("one")
    worker = worker_with_one(multispool, spool, gate)
    worker.send_signal(signal.SIGSTOP)
    multispool.done("cancel", spool, "one", "--reason", "x")
    worker.kill()
    worker.wait()
    after = multispool.start("work", spool, "send", "--once", "--cancelled", "failed", "--", "sleep", "100")
    assert line_of(after) == "multispool: one: cancelled (x), now in failed\n"


def test_cancelled_entries_need_a_queue_of_their_own(multispool, spool, put):
    """Or none: exit code 2 for the same, and 3 for one that does not exist."""
    put("one")
    same = multispool.here("work", spool, "send", "--cancelled", "send", "--", "true")
    assert same.returncode == 2
    assert same.stderr == "multispool: --cancelled must be another queue, or what is cancelled would begin anew\n"
    assert multispool.here("work", spool, "send", "--cancelled", "nosuch", "--", "true").returncode == 3


# Looking


def test_what_was_asked_to_be_cancelled_says_so(multispool, spool, put, gate):
    """`show` tells when and why, `ls` that it was; to scripts too."""
    put("one")
    put("two")
    worker = worker_with_one(multispool, spool, gate)
    worker.send_signal(signal.SIGSTOP)
    multispool.done("cancel", spool, "one", "--reason", "no longer")
    for name, asked in (("one", True), ("two", False)):
        shown = multispool.done("show", spool, name)
        assert (" ago): no longer\n" in shown) is asked
        assert ("\ncancel    asked 20" in shown) is asked
        found = json.loads(multispool.done("show", spool, name, "--json"))["cancellation"]
        if asked:
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(found["at"])
            assert 0 <= age.total_seconds() < 600
            assert found["reason"] == "no longer"
        else:
            assert found is None
    listed = multispool.done("ls", spool, "-l").splitlines()
    assert ["checked out, cancel asked" in line for line in listed] == [False, True, False]
    listed = json.loads(multispool.done("ls", spool, "-l", "--json"))["entries"]
    assert [(each["cancellation"] or {}).get("reason") for each in listed] == ["no longer", None]
