"""`multispool expire`."""

from __future__ import annotations

import json
import os
import time

import pytest

from helpers.spools import state_of
from helpers.stores import enqueue, make_store
from trio_multispool import Durability


@pytest.fixture
def three(spool):
    """Enqueue three entries, of three ages."""
    store = make_store(spool, queues=("send", "failed"), durability=Durability.PROCESS)
    for number, name in enumerate("abc"):
        enqueue(store, "failed", name, b"{}", name.encode())
        old = time.time() - number * 86_400 - 60
        os.utime(spool / "failed" / name, (old, old))
    store.close()
    return spool


def test_expire_lets_go_of_the_too_old_and_the_too_many(multispool, three):
    """A dry run says of which; the number is printed."""
    assert multispool.done("expire", three, "failed", "--max-age", "36h", "--dry-run").splitlines() == [
        "c: would be removed",
        "1 entry would be removed",
    ]
    assert multispool.done("expire", three, "failed", "--max-age", "36h") == "1 entry removed\n"
    assert multispool.done("expire", three, "failed", "--max-count", "1") == "1 entry removed\n"
    assert state_of(three).names("failed") == ["a"]
    assert json.loads(multispool.done("expire", three, "failed", "--max-count", "0", "--json")) == ["a"]


def test_a_command_has_a_look_first_and_keeps_what_it_fails_for(multispool, three, tmp_path):
    """It has the data on its standard input, and the name in its environment."""
    script = f'cat > "{tmp_path}/$MULTISPOOL_NAME.saved"; test "$MULTISPOOL_NAME" != b'
    found = multispool("expire", three, "failed", "--max-count", "0", "--", "sh", "-c", script)
    assert (found.returncode, found.stdout) == (0, "2 entries removed\n")
    assert "b is kept: exit status 1" in found.stderr
    assert state_of(three).names("failed") == ["b"]
    assert {path.name: path.read_text() for path in tmp_path.glob("*.saved")} == {f"{n}.saved": n for n in "abc"}
    found = multispool("expire", three, "failed", "--max-count", "0", "--", "/no/such/command")
    assert (found.returncode, found.stdout) == (0, "0 entries removed\n")
    assert "b is kept: cannot start" in found.stderr
    (three / ".data/b").unlink()
    found = multispool("expire", three, "failed", "--max-count", "0", "--", "true")
    assert (found.returncode, found.stdout) == (0, "0 entries removed\n")
    assert found.stderr == "multispool: b is kept: its data cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "say what is not to be kept"),
        (["--max-count", "-1"], 2, "must not be negative"),
        (["--max-age", "old"], 2, "not a duration: 'old'"),
    ],
)
def test_what_makes_no_sense_is_refused(multispool, three, options, code, message):
    """With the exit code for wrong usage, and nothing goes."""
    found = multispool("expire", three, "failed", *options)
    assert (found.returncode, message in found.stderr) == (code, True)
    assert len(state_of(three).names("failed")) == 3


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_queue_that_is_not_there_is_said(multispool, three, more):
    """With its exit code."""
    found = multispool("expire", three, "sent", "--max-count", "1", *more)
    assert found.returncode in {3, 5}
    assert "sent" in found.stderr
