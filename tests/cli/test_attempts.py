"""`multispool work --attempts`: a command that fails is run again later, and what is given up is a dead letter."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from helpers.spools import state_of

TRY = ("--attempts", "3", "--failed", "failed")
AT_ONCE = ("--retry-delay", "0")


def history(multispool, spool, name):
    """Return what `show` tells of the attempts: whether they are over, and the number and the end of each."""
    found = json.loads(multispool.done("show", spool, name, "--json"))["history"]
    ends = [(each["number"], each["failure"] and each["failure"]["message"]) for each in found["attempts"]]
    return found["given_up"], ends


def make_due(spool, name):
    """Let the time come that an entry waits for."""
    earlier = time.time() - 60
    os.utime(spool / "send" / ".waiting" / name, (earlier, earlier))


def test_what_fails_is_tried_again_until_its_attempts_are_used_up(multispool, spool, put):
    """The command is told which attempt it is; each has its line, and the history is kept with the dead letter."""
    put("one")
    command = ["sh", "-c", "echo $MULTISPOOL_ATTEMPT; exit 75"]
    worker = multispool.start("work", spool, "send", *TRY, *AT_ONCE, "--", *command)
    told = [worker.stderr.readline() for _ in range(3)]
    worker.terminate()
    out, rest = worker.communicate()
    assert told == [
        "multispool: one: failed (exit status 75), attempt 1 of 3, again in 0.0s\n",
        "multispool: one: failed (exit status 75), attempt 2 of 3, again in 0.0s\n",
        "multispool: one: failed (exit status 75), attempt 3 of 3, now in failed\n",
    ]
    assert (worker.returncode, out, rest) == (143, "1\n2\n3\n", "multispool: done 0, failed 3\n")
    assert state_of(spool).names("failed") == ["one"]
    assert history(multispool, spool, "one") == (True, [(number, "exit status 75") for number in (1, 2, 3)])
    assert "Traceback" not in multispool.done("show", spool, "one")


def test_what_succeeds_later_is_done(multispool, spool, put):
    """It is removed, or moved to --done, without its history."""
    put("one")
    command = ["sh", "-c", 'test "$MULTISPOOL_ATTEMPT" = 2']
    worker = multispool.start("work", spool, "send", *TRY, *AT_ONCE, "--done", "retry", "--", *command)
    told = [worker.stderr.readline() for _ in range(2)]
    worker.terminate()
    worker.communicate()
    assert told[1] == "multispool: one: done, moved to retry\n"
    assert state_of(spool).names("retry") == ["one"]
    assert json.loads(multispool.done("show", spool, "one", "--json"))["history"] is None


def test_with_once_an_attempt_a_run_is_made_when_it_is_due(multispool, spool, put):
    """So `work --once` can be run by a timer; the wait is told to scripts, and each is twice the one before."""
    put("one")
    work = ("work", spool, "send", "--once", *TRY, "--retry-delay", "30s", "--json", "--", "false")
    for number, most in ((1, 30), (2, 60)):
        failed = multispool(*work)
        assert failed.returncode == 6
        told, counts = map(json.loads, failed.stderr.splitlines())
        assert most / 2 <= told.pop("again_in") <= most  # half of it is left to chance
        assert told == {"name": "one", "outcome": "failed", "status": 1, "queue": "send", "attempt": number}
        assert counts == {"done": 0, "failed": 1, "returned": 0, "cancelled": 0}
        assert multispool(*work).stderr == '{"done":0,"failed":0,"returned":0,"cancelled":0}\n'
        make_due(spool, "one")
    told = json.loads(multispool(*work).stderr.splitlines()[0])
    assert (told["queue"], told["attempt"], told["again_in"]) == ("failed", 3, None)


def test_a_first_wait_of_more_than_an_hour_is_kept(multispool, spool, put):
    """The hour at which waits stop growing shortens none that was asked for."""
    put("one")
    failed = multispool("work", spool, "send", "--once", *TRY, "--retry-delay", "1d", "--json", "--", "false")
    assert 43_200 <= json.loads(failed.stderr.splitlines()[0])["again_in"] <= 86_400


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_uses_up_no_attempt(multispool, spool, put, gate, number):
    """The entry goes back as it was."""
    put("one")
    worker = multispool.start("work", spool, "send", *TRY, "--", *gate.command())
    gate.wait_begun()
    worker.send_signal(number)
    _, told = worker.communicate()
    assert worker.returncode == 128 + number
    assert told == "multispool: one: returned to send\nmultispool: done 0, failed 0, returned 1\n"
    assert state_of(spool).names("send") == ["one"]
    assert json.loads(multispool.done("show", spool, "one", "--json"))["history"] is None


def test_an_attempt_whose_worker_dies_counts(multispool, spool, put, gate):
    """What kills its worker each time is given up, and the command is not run again."""
    put("one")
    work = ("work", spool, "send", "--attempts", "1", "--failed", "failed", "--")
    worker = multispool.start(*work, *gate.command())
    command = gate.wait_begun()
    worker.kill()
    worker.wait()
    os.kill(command, signal.SIGKILL)
    after = multispool("work", spool, "send", "--attempts", "1", "--failed", "failed", "--once", "--", "echo", "ran")
    assert (after.returncode, after.stdout) == (6, "")
    assert after.stderr.startswith("multispool: one: failed (its worker died), attempt 1 of 1, now in failed\n")
    assert history(multispool, spool, "one") == (True, [(1, None)])


def test_a_command_that_cannot_be_started_is_no_attempt(multispool, spool, put, tmp_path):
    """It ends the work with exit code 1, and all entries go back."""
    put("one")
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    done = multispool("work", spool, "send", *TRY, "--", script)
    assert done.returncode == 1
    assert done.stderr == (
        "multispool: one: returned to send\n"
        "multispool: done 0, failed 0, returned 1\n"
        f"multispool: cannot start '{script}': No such file or directory\n"
    )
    assert state_of(spool).names("send") == ["one"]
    assert json.loads(multispool.done("show", spool, "one", "--json"))["history"] is None


def test_several_commands_run_at_a_time(multispool, spool, put, gate):
    """With --jobs 2, two have begun before either has ended."""
    put("one")
    put("two")
    worker = multispool.start("work", spool, "send", *TRY, "--jobs", "2", "--once", "--", *gate.command())
    assert gate.wait_begun() != gate.wait_begun()
    gate.let_go()
    gate.let_go()
    _, told = worker.communicate()
    assert worker.returncode == 0
    assert told.endswith("multispool: done 2, failed 0\n")


def test_data_that_is_missing_is_a_failure_like_any(multispool, spool, put):
    """It is tried again: somebody may put it back."""
    put("one")
    (spool / ".data" / "one").unlink()
    done = multispool("work", spool, "send", *TRY, "--once", *AT_ONCE, "--", "true")
    why = "its data cannot be read: No such file or directory"
    assert done.stderr.startswith(f"multispool: one: failed ({why}), attempt 1 of 3, again in 0.0s\n")


def test_a_spool_that_is_not_adopted_is_refused(multispool, spool, put):
    """Its other programs need not know of entries that wait."""
    put("one")
    (spool / ".spool.json").unlink()
    refused = multispool.here("work", spool, "send", *TRY, "--once", "--", "true")
    assert refused.returncode == 5
    assert "adopt the spool" in refused.stderr


def test_without_attempts_a_command_is_told_of_none(multispool, spool, put):
    """Nor of that of an outer `work`."""
    put("one")
    command = ["sh", "-c", "echo ${MULTISPOOL_ATTEMPT-unset}"]
    environment = {**os.environ, "MULTISPOOL_ATTEMPT": "7"}
    assert multispool("work", spool, "send", "--once", "--", *command, env=environment).stdout == "unset\n"
