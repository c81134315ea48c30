"""`multispool stats`: how much a spool holds, and how that has changed."""

from __future__ import annotations

import datetime
import json
import os
import time

import pytest


@pytest.fixture
def filled(spool, put, set_aside):
    """Fill the spool: two entries wait in "send", the older for three hours, and one is set aside."""
    put("a", data="12345")
    put("b", data="678", meta="{}")
    set_aside("c", data="9")
    then = time.time() - 3 * 3600 - 60
    os.utime(spool / "send/a", (then, then))
    return spool


def test_stats_sum_up_each_queue(multispool, filled):
    """Entries wherever they are, the bytes of both their files, and the age of the oldest."""
    assert multispool.done("stats", filled) == (
        "QUEUE   ENTRIES  AVAILABLE  METADATA  DATA  OLDEST\n"
        "failed        0          0       0 B   0 B       -\n"
        "retry         0          0       0 B   0 B       -\n"
        "send          3          2      28 B   9 B      3h\n"
        "(all)         3          2      28 B   9 B      3h\n"
    )
    assert multispool.done("stats", filled, "send") == (
        "QUEUE  ENTRIES  AVAILABLE  METADATA  DATA  OLDEST\nsend         3          2      28 B   9 B      3h\n"
    )


def test_stats_as_json_are_a_stable_document(multispool, filled, dead):
    """A script finds counts, bytes and times under fixed keys."""
    found = json.loads(multispool.done("stats", filled, "--json"))
    datetime.datetime.fromisoformat(found.pop("at"))
    times = {queue["queue"]: (queue.pop("oldest_at"), queue.pop("oldest_age")) for queue in found["queues"]}
    assert times["failed"] == (None, None)
    assert 3 * 3600 < times["send"][1] < 4 * 3600
    nothing = {"entries": 0, "available": 0, "waiting": 0, "checked_out": 0, "quarantined": 0}
    nothing |= {"metadata_bytes": 0, "data_bytes": 0}
    assert found == {
        "spool": str(filled),
        "queues": [
            {"queue": "failed"} | nothing,
            {"queue": "retry", "entries": 1, "checked_out": 1, "available": 0, "waiting": 0, "quarantined": 0}
            | {"metadata_bytes": 13, "data_bytes": 5},
            {"queue": "send", "entries": 3, "available": 2, "waiting": 0, "checked_out": 0, "quarantined": 1}
            | {"metadata_bytes": 28, "data_bytes": 9},
        ],
    }


def earlier(multispool, spool, seconds):
    """Write down what there is now, as if it had been looked at so many seconds ago."""
    found = json.loads(multispool.done("stats", spool, "--json"))
    then = datetime.datetime.fromisoformat(found["at"]) - datetime.timedelta(seconds=seconds)
    found["at"] = then.isoformat()
    (multispool.directory / "before.json").write_text(json.dumps(found))


def test_changes_since_an_earlier_look_are_told(multispool, filled, put):
    """By how many entries a queue has grown or shrunk, and how many that is a minute."""
    earlier(multispool, filled, 6000)
    for name in ("d", "e"):
        put(name, queue="failed", data="12")
    multispool.done("rm", filled, "a")
    rows = [line.split() for line in multispool.done("stats", filled, "--since", "before.json").splitlines()]
    assert [row[-2:] for row in rows] == [["A", "MINUTE"], ["+2", "+0.0"], ["0", "0"], ["-1", "-0.0"], ["+1", "+0.0"]]
    since = json.loads(multispool.done("stats", filled, "--since", "before.json", "--json"))["since"]
    assert 6000 < since["seconds"] < 6600
    assert [(each["queue"], each["entries"], each["data_bytes"]) for each in since["queues"]] == [
        ("failed", 2, 4),
        ("retry", 0, 0),
        ("send", -1, -5),
    ]
    assert since["queues"][0]["entries_per_minute"] == pytest.approx(2 / since["seconds"] * 60)


def test_what_is_no_earlier_look_is_refused(multispool, spool):
    """A file that is missing, none of ours, of another spool or of the future ends it with a line that says so."""
    assert multispool("stats", spool, "--since", "nosuch").stderr == (
        "multispool: cannot read 'nosuch': No such file or directory\n"
    )
    (multispool.directory / "other.json").write_text('{"spool": 3}')
    refused = multispool.here("stats", spool, "--since", "other.json")
    assert refused.returncode == 2
    assert refused.stderr.startswith("multispool: 'other.json' is not what `multispool stats --json` writes: ")
    earlier(multispool, spool, -3600)
    assert "no earlier look" in multispool("stats", spool, "--since", "before.json").stderr
    multispool.done("create", "another", "send")
    assert multispool("stats", "another", "--since", "before.json").stderr.startswith(
        f"multispool: --since is of another spool, '{spool}'"
    )


def test_stats_only_look(multispool, filled, dead, snapshot):
    """No file or directory is made, changed or touched."""
    before = snapshot(filled)
    multispool.done("stats", filled)
    multispool.done("stats", filled, "retry", "--json")
    assert snapshot(filled) == before
