"""Files that are dated as no clock can be: by another program, or by a machine whose clock was wrong."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest

from helpers.spools import state_of
from helpers.stores import DUE, claim, enqueue, make_store, release
from trio_multispool.looks.directory import Looker
from trio_multispool.model.attempts import ATTEMPTS, Attempt, Failure, History, encode_history

ODD = {"long-ago": -(10**11), "before-1970": -(10**9), "year-10000": 253_402_300_800, "far-ahead": 2**40}
COMMANDS = {
    "ls": [],
    "ls --json": [],
    "ls --long": ["send"],
    "ls --long --json": ["send"],
    "ls --ages": [],
    "stats": [],
    "stats --json": [],
    "fsck --max-send-age 1h": [],
    "expire --max-age 1d --dry-run": ["send"],
    "rm --older-than 1h --dry-run": [],
    "export": ["send"],
}


@pytest.fixture
def dated(spool):
    """Leave an entry that waits and one that is available, each with its data, dated alike; return how they lie."""

    def date(stamp):
        store = make_store(spool)
        enqueue(store, "send", "waits", b'{"to":"anne"}', due_at=DUE)
        enqueue(store, "send", "there", b'{"to":"anne"}')
        store.close()
        for path in ("send/.waiting/waits", "send/there", ".data/waits", ".data/there"):
            os.utime(spool / path, (stamp, stamp))
        return spool

    return date


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("stamp", ODD.values(), ids=ODD)
def test_a_nonsense_stamp_on_a_file_breaks_no_command_that_looks(multispool, dated, stamp, command):
    """It is shown as what it is, or as the nearest time that can be shown; the command goes on to its end."""
    name, *options = command.split()
    found = multispool.here(name, dated(stamp), *COMMANDS[command], *options)
    assert "Traceback" not in found.stderr
    assert (found.returncode, found.stdout != "") in ((0, True), (7, True)), found.stderr


@pytest.mark.parametrize("entry", ["waits", "there"])
@pytest.mark.parametrize("stamp", ODD.values(), ids=ODD)
def test_an_entry_with_a_nonsense_stamp_can_be_shown(multispool, dated, stamp, entry):
    """To people, to scripts, and in the live view."""
    spool = dated(stamp)
    for options in ((), ("--json",)):
        found = multispool.here("show", spool, entry, *options)
        assert (found.returncode, found.stderr) == (0, "")
        assert entry in found.stdout
    looker = Looker(spool)
    assert [queue.queue for queue in looker.look().queues if queue.available] == ["send"]
    assert dict(looker.details("send", entry).facts)["name"] == entry
    assert {listed.name for listed in looker.listing("send").entries} == {"waits", "there"}


@pytest.mark.parametrize("stamp", ODD.values(), ids=ODD)
def test_nothing_is_selected_or_expired_by_an_age_that_cannot_be(multispool, dated, stamp):
    """It stays, and `expire` says so."""
    spool = dated(stamp)
    enqueue(store := make_store(spool), "send", "old", b'{"to":"anne"}')
    store.close()
    long_ago = time.time() - 40 * 86_400
    os.utime(spool / "send/old", (long_ago, long_ago))
    assert multispool.here("rm", spool, "--older-than", "30d", "--from", "send", "--dry-run").stdout.startswith("old")
    found = multispool.here("expire", spool, "send", "--max-age", "30d", "--dry-run")
    assert found.stdout.startswith("old: would be removed\n1 entry")
    assert "1 would be left: their dates cannot be, such as that of there" in found.stderr
    found = multispool("expire", spool, "send", "--max-age", "30d")
    assert (found.returncode, "of its entries: their dates cannot be" in found.stderr) == (0, True)
    assert state_of(spool).names("send") == ["there"]


def test_an_entry_that_was_taken_early_is_selected_by_the_age_of_its_last_move(multispool, spool):
    """Its check-out is a move too, and does not make it younger."""
    store = make_store(spool)
    enqueue(store, "send", "a", b'{"to":"anne"}', due_at=time.time() + 3600)
    store.close()
    multispool.done("mv", spool, "a", "retry")
    multispool.done("rm", spool, "--from", "retry", "--older-than", "0")
    assert state_of(spool).entries() == set()


@pytest.mark.parametrize("keeps_times", [True, False])
def test_fsck_tells_of_what_waits_in_a_copy_that_does_not_keep_times(multispool, spool, keeps_times):
    """All of it is due at once there, which nobody would see; it is left. A copy with its times is sound."""
    store = make_store(spool)
    for name in ("a", "b"):
        enqueue(store, "send", name, b'{"to":"anne"}', due_at=DUE)
    enqueue(store, "send", "c", b'{"to":"anne"}')
    store.close()
    copy = spool.with_name("copy")
    shutil.copytree(spool, copy, copy_function=shutil.copy2 if keeps_times else shutil.copyfile)
    assert multispool.done("fsck", spool)
    found = multispool.here("fsck", copy, "--repair", "--json")
    told = [(problem["problem"], problem["name"]) for problem in json.loads(found.stdout)["problems"]]
    assert (found.returncode, told) == ((0, []) if keeps_times else (7, [("Misdated", "a"), ("Misdated", "b")]))
    assert set(state_of(copy).waiting["send"]) == {"a", "b"}


@pytest.mark.parametrize(("began", "ended"), [(-1.7e308, 1.7e308), (1.7e308, -1.7e308)])
def test_an_attempt_that_took_longer_than_there_are_numbers_can_be_shown(multispool, spool, began, ended):
    """Any program may have written its times: both are shown as they are, and the rest with them."""
    store = make_store(spool)
    enqueue(store, "send", "one", b'{"to":"anne"}')
    claimed = claim(store, "send", "one")
    attempt = Attempt(1, "send", began, "host", 4, ended, Failure("Error"))
    store.annotate(claimed, ATTEMPTS, encode_history(History("send", 1, (attempt,))))
    release(store, claimed)
    store.close()
    shown = multispool.here("show", spool, "one")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"at {began}, send, host[4], took unknown: Error" in shown.stdout
    assert shown.stdout.endswith('"to": "anne"\n}\n')
