"""`multispool mv` and `multispool rm`."""

from __future__ import annotations

import json

import pytest


def test_mv_moves_entries_from_any_queue(multispool, spool, put):
    """Metadata and data go along unchanged, and JSON tells whence."""
    put("a", queue="failed", meta='{"n": 0.10}', data="A")
    put("b", queue="send")
    found = json.loads(multispool.done("mv", spool, "a", "b", "retry", "--json"))
    assert found == [{"name": "a", "from": "failed", "to": "retry"}, {"name": "b", "from": "send", "to": "retry"}]
    assert (spool / "retry/a").read_text() == '{"n": 0.10}'
    assert (spool / ".data/a").read_text() == "A"
    assert (spool / "retry/b").exists()
    assert multispool.done("mv", spool, "a", "retry") == ""  # where it is already
    assert (spool / "retry/a").exists()


def test_rm_removes_an_entry_with_all_that_belongs_to_it(multispool, spool, put):
    """Nothing of it is left, and the others stay."""
    for name in ("a", "b", "-c"):
        put(name) if name[0] != "-" else multispool.done("put", spool, "send", "-", f"--name={name}")
    assert json.loads(multispool.done("rm", spool, "a", "--json")) == [{"name": "a", "from": "send"}]
    assert multispool.done("rm", spool, "--", "-c") == ""
    for directory in ("send", ".data", ".registry"):
        assert [path.name for path in (spool / directory).iterdir() if path.is_file()] == ["b"]


def test_mv_to_a_queue_that_does_not_exist_moves_nothing(multispool, spool, put):
    """Exit code 3, naming the queues there are."""
    put("a")
    refused = multispool.here("mv", spool, "a", "nosuch")
    assert refused.returncode == 3
    assert refused.stderr == f"multispool: there is no queue 'nosuch' in '{spool}'; it has: failed, retry, send\n"
    assert (spool / "send/a").exists()


def test_mv_wants_an_entry_and_a_queue(multispool, spool):
    """A queue alone is wrong usage."""
    refused = multispool.here("mv", spool, "send")
    assert refused.returncode == 2
    assert refused.stderr == "multispool: mv wants entries and a queue: multispool mv SPOOL NAME... QUEUE\n"


@pytest.mark.parametrize("command", ["mv", "rm"])
def test_what_is_being_worked_on_is_left_alone(multispool, spool, put, gate, owner_of, command):  # noqa: PLR0913, PLR0917  # fixtures
    """The others are settled, the exit code is that of a busy entry, and the owner is named."""
    for name in ("a", "b"):
        put(name)
    worker = multispool.start("work", spool, "send", "--once", "--", *gate.command())
    gate.wait_begun()
    destination = ["retry"] if command == "mv" else []
    found = multispool(command, spool, "a", "b", *destination, "--json")
    assert found.returncode == 4
    owner = owner_of(worker)
    by = "" if owner is None else f" by {owner['command']}[{owner['pid']}]"
    assert found.stderr == f"multispool: entry 'a' is checked out of 'send'{by}\n"
    assert [settled["name"] for settled in json.loads(found.stdout)] == ["b"]
    assert (spool / "send/.checkout/a").exists()
    gate.let_go()
    worker.communicate()
    assert worker.returncode == 0


def test_what_is_missing_does_not_keep_the_others(multispool, spool, put):
    """All are tried, and the exit code is that of the first that failed."""
    put("a")
    found = multispool("rm", spool, "nosuch", "a")
    assert (found.returncode, found.stderr) == (3, f"multispool: there is no entry 'nosuch' in '{spool}'\n")
    assert not (spool / "send/a").exists()


@pytest.mark.parametrize("command", ["mv", "rm"])
def test_an_entry_in_quarantine_is_left_there(multispool, spool, put, command):
    """It waits for a person who looks at it; exit code 5."""
    put("odd")
    (spool / ".quarantine/send").mkdir(parents=True)
    (spool / "send/odd").rename(spool / ".quarantine/send/odd")
    refused = multispool.here(command, spool, "odd", *(["retry"] if command == "mv" else []))
    assert refused.returncode == 5
    assert refused.stderr == ("multispool: entry 'odd' is in quarantine; `multispool show` says why it was set aside\n")
    assert (spool / ".quarantine/send/odd").exists()


@pytest.mark.parametrize("command", ["mv", "rm", "retry"])
def test_a_selection_is_what_its_dry_run_has_shown(multispool, spool, put, dead, command):
    """What a dead process had is not in it, and is not put back for it either."""
    put("one", queue="retry")
    words = {"mv": ["send", "--all"], "rm": ["--from", "retry", "--all"], "retry": ["retry", "send", "--all"]}
    shown = multispool.done(command, spool, *words[command], "--dry-run")
    assert shown.startswith("one: would be ")
    done = multispool.done(command, spool, *words[command])
    assert done.startswith("1 entry ")
    assert (spool / "retry/.checkout" / dead).exists()
    assert not (spool / "retry/one").exists()


@pytest.mark.parametrize("command", ["mv", "rm"])
def test_what_a_dead_process_had_can_be_settled_at_once(multispool, spool, dead, command):
    """It needs no reader to come by first."""
    multispool.done(command, spool, dead, *(["send"] if command == "mv" else []))
    assert not (spool / "retry/.checkout" / dead).exists()
    assert (spool / "send" / dead).exists() is (command == "mv")
