"""`multispool fsck`: what is wrong in lines and in JSON, what would be done, and what is."""

from __future__ import annotations

import json
import os

import pytest

from helpers.damage import DAMAGE, LONG_AGO
from helpers.spools import state_of
from helpers.stores import claim, make_store
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import Advice


@pytest.fixture
def stray(spool, put):
    """Leave an entry in `failed` without data, one that is checked out by the dead, and a file at the top."""
    put("lost", queue="failed")
    put("held", queue="failed")
    (spool / ".data" / "lost").unlink()
    DAMAGE["abandoned"][0](spool, "held")
    (spool / "README").touch()


def test_a_sound_spool_has_nothing_wrong(multispool, spool, put, snapshot):
    """One line, exit code 0, and nothing is touched; what a living process has is no problem."""
    put("one")
    put("two")
    store = make_store(spool)
    claimed = claim(store, "send", "two")
    before = snapshot(spool)
    assert multispool.done("fsck", spool) == "nothing is wrong\n"
    assert multispool.done("fsck", spool, "--repair", "--dry-run") == "nothing is wrong\n"
    assert json.loads(multispool.done("fsck", spool, "--json")) == {
        "spool": str(spool),
        "adopted": True,
        "problems": [],
        "advice": [],
    }
    assert snapshot(spool) == before
    claimed.abandon()
    store.close()


def test_what_is_wrong_is_a_line_each_and_exit_code_7(multispool, spool, stray, snapshot):
    """Looking changes nothing, not even what a reader would recover."""
    before = snapshot(spool)
    told = multispool("fsck", spool)
    assert told.stderr == ""
    assert _ageless(told.stdout) == [
        "'README' in . is no part of a spool (a file)",
        "entry 'held' is checked out of 'failed', and its owner is dead",
        "entry 'lost' in failed has lost its data",
        "3 problems",
    ]
    assert told.returncode == 7
    planned = multispool("fsck", spool, "-n")
    assert planned.returncode == 7
    assert _ageless(planned.stdout)[1:] == [
        "entry 'held' is checked out of 'failed', and its owner is dead: it goes back to 'failed'",
        "entry 'lost' in failed has lost its data: its metadata is set aside in quarantine",
        "3 problems, 2 can be repaired",
    ]
    assert multispool("fsck", spool, "--repair", "--dry-run").stdout.endswith("2 can be repaired\n")
    assert snapshot(spool) == before


def _ageless(text: str) -> list[str]:
    import re

    return [re.sub(r" \(\d+[smhd]\)", "", line) for line in text.splitlines()]


def test_repair_puts_right_what_can_be(multispool, spool, stray):
    """What is left needs a person, and keeps the exit code at 7; without it, all is well."""
    done = multispool("fsck", spool, "--repair")
    assert (done.returncode, done.stderr) == (7, "")
    readme, held, lost, total = _ageless(done.stdout)
    assert readme.endswith("it is left: nobody can tell whose it is; move it away by hand")
    assert held.endswith(": put back")
    assert lost.endswith(": set aside in quarantine")
    assert total == "3 problems, 2 were repaired"
    state = state_of(spool)
    assert state.names("failed") == ["held"]
    assert list(state.quarantined["failed"]) == ["lost"]
    (spool / "README").unlink()
    assert multispool.done("fsck", spool, "--repair") == "nothing is wrong\n"
    DAMAGE["abandoned"][0](spool, "held")
    assert multispool("fsck", spool, "--repair").returncode == 0


def test_json_tells_what_and_where_and_what_was_done(multispool, spool, stray):
    """One document; the same problems by the same fields, with what became of each."""
    told = multispool("fsck", spool, "--json")
    found = json.loads(told.stdout)
    assert told.returncode == 7
    for problem in found["problems"]:
        assert problem.pop("age") >= 0
    assert found["problems"][1] == {
        "problem": "Abandoned",
        "name": "held",
        "dir": "failed/.checkout",
        "queue": "failed",
        "message": "entry 'held' is checked out of 'failed', and its owner is dead",
        "remedy": "it goes back to 'failed'",
    }
    assert "repairs" not in found
    repairs = json.loads(multispool("fsck", spool, "--repair", "--json").stdout)["repairs"]
    assert [(each["name"], each["action"], each["done"]) for each in repairs] == [
        ("README", "leave", False),
        ("held", "return", True),
        ("lost", "quarantine", True),
    ]


@pytest.mark.parametrize("options", [["--max-send-age", "1h"], ["--max-age", "send=1h"], ["--max-send-age=3600"]])
def test_an_entry_that_waits_too_long_by_the_limit_of_its_queue(multispool, spool, put, options):
    """Each queue on disk has a flag, as the original has; without one, there is no limit."""
    put("one")
    os.utime(spool / "send" / "one", (LONG_AGO, LONG_AGO))
    assert multispool.done("fsck", spool) == "nothing is wrong\n"
    told = multispool("fsck", spool, *options)
    assert told.returncode == 7
    assert _ageless(told.stdout)[0] == "entry 'one' has waited in 'send' for too long"
    assert multispool.done("fsck", spool, "--max-send-age", "none") == "nothing is wrong\n"
    assert multispool.done("fsck", spool, "--max-retry-age", "1s") == "nothing is wrong\n"


def test_a_check_out_that_takes_too_long_and_an_old_temporary_file(multispool, spool, put):
    """The original's flags; `none` is no limit. The living owner is left alone."""
    put("one")
    store = make_store(spool)
    claimed = claim(store, "send", "one")
    told = multispool("fsck", spool, "--max-checked-out-age", "0")
    assert _ageless(told.stdout)[0] == "entry 'one' has been checked out of 'send' for too long"
    left = multispool("fsck", spool, "--max-checked-out-age=0", "--repair")
    assert left.returncode == 7
    assert "its owner lives" in left.stdout
    claimed.abandon()
    store.close()
    DAMAGE["old temporary metadata"][0](spool, "one")
    assert "temporary file 'x'" in multispool("fsck", spool, "--max-checked-out-age", "none").stdout
    assert "temporary" not in multispool("fsck", spool, "--max-tmp-file-age", "none").stdout
    assert multispool("fsck", spool, "--repair").returncode == 0
    assert state_of(spool).faults() == []


def test_metadata_is_judged_only_if_it_is_said_to_be_json(multispool, spool, put):
    """Whatever a program keeps in its metadata is its own affair."""
    put("one", meta="dear")
    assert multispool.done("fsck", spool) == "nothing is wrong\n"
    told = multispool("fsck", spool, "--json-metadata")
    assert told.returncode == 7
    assert "the metadata of entry 'one' in send cannot be decoded" in told.stdout
    assert multispool("fsck", spool, "--json-metadata", "--repair").returncode == 0
    assert list(state_of(spool).quarantined["send"]) == ["one"]


def test_a_spool_that_is_not_adopted_can_be_looked_at_but_not_repaired(multispool, spool, stray, snapshot):
    """There nobody is known to be dead, which is said; exit code 5 for a repair, and nothing is touched."""
    (spool / ".spool.json").unlink()
    before = snapshot(spool)
    told = multispool("fsck", spool)
    assert told.returncode == 7
    assert _ageless(told.stdout) == ["'README' in . is no part of a spool (a file)", "1 problem"]
    assert "is not adopted" in told.stderr
    assert json.loads(multispool("fsck", spool, "--json").stdout)["adopted"] is False
    refused = multispool.here("fsck", spool, "--repair")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "see multispool adopt --help" in refused.stderr
    assert snapshot(spool) == before


def test_a_spool_without_queues_can_be_looked_at(multispool, spool):
    """There is nothing in it."""
    for queue in ("send", "retry", "failed"):
        (spool / queue / ".checkout").rmdir()
        (spool / queue).rmdir()
    assert multispool.done("fsck", spool) == "nothing is wrong\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--max-nosuch-age", "1h"], 3, "there is no queue 'nosuch'"),
        (["--max-age", "nosuch=1h"], 3, "there is no queue 'nosuch'"),
        (["--max-age", "send"], 2, "--max-age wants QUEUE=AGE, not 'send'"),
        (["--max-send-age", "soon"], 2, "not a duration: 'soon'"),
        (["--max-checked-out-age", "soon"], 2, "not a duration: 'soon'"),
        (["--bogus", "1"], 2, 'Unknown option: "--bogus"'),
    ],
)
def test_nonsense_is_one_line_and_its_exit_code(multispool, spool, words, code, message):
    """Limits of what does not exist would never tell anything."""
    refused = multispool.here("fsck", spool, *words)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_names_that_a_terminal_would_obey_are_shown_as_escapes(multispool, spool):
    """Also those that are no UTF-8."""
    (spool / "send" / "\x1b[31m").touch()
    with open(os.fsencode(spool / "send") + b"/\xff", "wb"):
        pass
    told = multispool("fsck", spool)
    assert told.returncode == 7
    assert "\x1b" not in told.stdout
    assert len(json.loads(multispool("fsck", spool, "--json").stdout)["problems"]) == 2


def test_what_a_repair_brings_up_is_put_right_too(multispool, spool, put):
    """A check-out without reservation is reserved; only then is it known that nobody has it, and it is put back."""
    put("one", queue="failed")
    DAMAGE["abandoned"][0](spool, "one")
    (spool / ".registry/one").unlink()
    shown = multispool.done("fsck", spool, "--repair").splitlines()
    assert [line.rpartition(": ")[2] for line in shown] == [
        "reserved again",
        "put back",
        "2 problems, 2 were repaired",
    ]
    assert state_of(spool).names("failed") == ["one"]
    assert multispool.done("fsck", spool) == "nothing is wrong\n"


def test_what_goes_together_is_put_right_together(multispool, spool, put):
    """A reservation and data of no entry are two problems and one deletion: nothing is left, and the exit code is 0."""
    put("one")
    (spool / "send/one").unlink()
    shown = multispool.done("fsck", spool, "--repair")
    assert [line.rpartition(": ")[2] for line in shown.splitlines()] == [
        "deleted",
        "deleted",
        "2 problems, 2 were repaired",
    ]
    assert multispool.done("fsck", spool) == "nothing is wrong\n"


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--repair",)], ids=["looking", "planning", "repairing"])
def test_what_the_store_advises_is_told_and_changes_no_exit_code(multispool, spool, monkeypatch, options):
    """A line each before the sum, or a list in JSON; it is no problem of any entry."""
    advice = [Advice("fsync is off", "switch it on"), Advice("\x1b[31m", "look")]
    monkeypatch.setattr(DirectoryStorage, "advice", lambda _store: advice)
    told = multispool.here("fsck", spool, *options)
    assert told.returncode == 0
    assert told.stdout.splitlines() == [
        "advice: fsync is off; switch it on",
        r"advice: \x1b[31m; look",
        "nothing is wrong",
    ]
    told = multispool.here("fsck", spool, "--json", *options)
    assert json.loads(told.stdout)["advice"] == [
        {"what": "fsync is off", "cure": "switch it on"},
        {"what": "\x1b[31m", "cure": "look"},
    ]
