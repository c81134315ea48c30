"""`multispool recover`."""

from __future__ import annotations

import json

from helpers.spools import state_of
from helpers.stores import claim, make_store


def test_recover_puts_back_what_the_dead_had_and_collects_what_they_left(multispool, spool, dead):
    """Each has a line; afterwards there is nothing left to do."""
    (spool / ".registry" / "reserved").touch()
    assert multispool.done("recover", spool) == (
        "dead: is back in retry\nreserved: was collected, it belonged to no entry\n"
    )
    assert state_of(spool).places(dead) == ["retry"]
    assert state_of(spool).faults() == []
    assert multispool.done("recover", spool) == "nothing to recover\n"


def test_a_dry_run_tells_the_same_and_changes_nothing(multispool, spool, dead, snapshot):
    """Not even what a look at the spool might touch."""
    (spool / ".registry" / "reserved").touch()
    before = snapshot(spool)
    assert multispool.done("recover", spool, "--dry-run") == (
        "dead: would go back to retry\nreserved: would be collected, it belonged to no entry\n"
    )
    found = json.loads(multispool.done("recover", spool, "-n", "--json"))
    assert found == {
        "spool": str(spool),
        "dry_run": True,
        "recovered": [{"name": "dead", "queue": "retry"}, {"name": "reserved", "queue": None}],
        "failed": 0,
    }
    assert snapshot(spool) == before
    assert state_of(spool).places(dead) == ["retry/.checkout"]


def test_recover_leaves_alone_what_somebody_has(multispool, spool, put):
    """A living owner's entry is neither put back nor told of."""
    put("one")
    store = make_store(spool)
    claimed = claim(store, "send", "one")
    assert multispool.done("recover", spool) == "nothing to recover\n"
    assert state_of(spool).places("one") == ["send/.checkout"]
    claimed.abandon()
    assert multispool.done("recover", spool) == "one: is back in send\n"
    store.close()


def test_recover_says_that_a_spool_is_not_adopted(multispool, spool, dead, snapshot):
    """There nothing may be taken for abandoned; the word on standard error says what helps."""
    (spool / ".spool.json").unlink()
    before = snapshot(spool)
    done = multispool("recover", spool)
    assert done.returncode == 5
    assert done.stderr == (
        f"multispool: {str(spool)!r} is not adopted, so nothing can be taken for abandoned; "
        "see multispool adopt --help\n"
    )
    assert snapshot(spool) == before


def test_recover_tells_what_it_could_not_recover_by_its_exit_code(multispool, spool, put, dead):
    """The others are recovered all the same; a script that looks at the exit code alone knows."""
    put("stuck")
    (spool / "send/stuck").rename(spool / "send/.checkout/stuck")
    (spool / ".registry/stuck").unlink()
    (spool / ".registry/stuck").mkdir()
    done = multispool("recover", spool)
    assert (done.returncode, done.stdout) == (1, "dead: is back in retry\n")
    assert done.stderr.startswith("multispool: not recovered: entry stuck of spool ")
    done = multispool("recover", spool, "--json")
    assert (done.returncode, json.loads(done.stdout)["failed"]) == (1, 1)
