"""`multispool pause` and `resume`, and what `ls` and `work` make of them."""

from __future__ import annotations

import json

from trio_multispool.cli.exits import Exit


def test_a_queue_is_paused_and_resumed(multispool, spool, put):
    """`ls` says so, and JSON tells scripts when, until when and why."""
    put("a")
    assert "PAUSED" not in multispool.done("ls", spool)
    assert multispool.done("pause", spool, "send") == "send: paused until it is resumed\n"
    said = multispool.done("pause", spool, "send", "--for", "10m", "--reason", "the relay\x1b[1m")
    assert said == "send: paused for 10m: the relay\\x1b[1m\n"
    shown = multispool.done("ls", spool)
    assert "PAUSED" in shown
    assert "the relay\\x1b[1m" in shown
    [of_send] = [
        each["pause"] for each in json.loads(multispool.done("ls", spool, "--json"))["queues"] if each["pause"]
    ]
    assert of_send["reason"] == "the relay\x1b[1m"
    assert of_send["since"] < of_send["until"]
    assert multispool.done("resume", spool, "send") == "send: goes on\n"
    assert multispool.done("resume", spool, "send") == "send: was not paused\n"
    assert "PAUSED" not in multispool.done("ls", spool)


def test_scripts_are_told_what_was_done(multispool, spool):
    """As JSON."""
    found = json.loads(multispool.done("pause", spool, "send", "--json"))
    assert (found["queue"], found["pause"]["until"], found["pause"]["reason"]) == ("send", None, "")
    assert json.loads(multispool.done("resume", spool, "send", "--json")) == {"queue": "send", "was_paused": True}
    assert json.loads(multispool.done("resume", spool, "send", "--json")) == {"queue": "send", "was_paused": False}


def test_a_worker_takes_nothing_from_a_paused_queue(multispool, spool, put):
    """Not even one that takes only what is there."""
    put("a")
    multispool.done("pause", spool, "send")
    assert multispool("work", spool, "send", "--once", "--", "true").stderr == "multispool: done 0, failed 0\n"
    multispool.done("resume", spool, "send")
    assert multispool("work", spool, "send", "--once", "-q", "--", "true").stderr == "multispool: done 1, failed 0\n"


def test_what_cannot_be_meant_is_refused(multispool, spool):
    """In one line, and nothing is paused."""
    for arguments, code in (
        (("sent",), Exit.NOT_FOUND),
        (("send", "--for", "0"), Exit.USAGE),
        (("send", "--for", "x"), Exit.USAGE),
    ):
        refused = multispool("pause", spool, *arguments)
        assert refused.returncode == code, refused
        assert len(refused.stderr.splitlines()) == 1
    assert "PAUSED" not in multispool.done("ls", spool)
