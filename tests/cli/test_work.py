"""`multispool work`: what becomes of entries, whatever becomes of commands and of the work itself."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from helpers.spools import state_of
from trio_multispool.cli.exits import Exit

META = '{"to": "anne", "n": 0.10}'
ENVIRONMENT = 'for name in SPOOL QUEUE NAME METADATA DATA; do eval echo $name=\\"\\$MULTISPOOL_$name\\"; done'


def where(spool):
    """Return the metadata of every entry by where it is."""
    return {
        str(path.relative_to(spool)): path.read_text()
        for queue in ("send", "retry", "failed")
        for path in (spool / queue).rglob("*")
        if path.is_file()
    }


def leftovers(spool):
    """Return what is kept about entries beside their metadata."""
    return [path.name for directory in (".data", ".registry", ".tmp") for path in (spool / directory).iterdir()]


def is_running(pid):
    """Tell whether a process is there, and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_gets_the_data_and_is_told_about_the_entry(multispool, spool, put):
    """Data comes on standard input, the rest in the environment; the entry of a command that succeeds is removed."""
    put("one", data="line\nlast", meta=META)
    done = multispool("work", spool, "send", "--once", "--", "sh", "-c", f"cat; echo; {ENVIRONMENT}")
    assert done.returncode == 0
    assert done.stdout == (
        f"line\nlast\nSPOOL={spool}\nQUEUE=send\nNAME=one\nMETADATA={META}\nDATA={spool}/.data/one\n"
    )
    assert done.stderr == "multispool: one: done\nmultispool: done 1, failed 0\n"
    assert where(spool) == {}
    assert leftovers(spool) == []


def test_the_environment_is_inherited_but_for_what_an_outer_work_said(multispool, spool, put):
    """A nested `work` does not mistake its caller's entry for its own."""
    put("one")
    (spool / "send/one").write_bytes(b"\xff")
    environment = {**os.environ, "OTHER": "kept", "MULTISPOOL_METADATA": "outer", "MULTISPOOL_NAME": "outer"}
    command = ["sh", "-c", "echo $OTHER $MULTISPOOL_NAME ${MULTISPOOL_METADATA-unset}"]
    assert multispool("work", spool, "send", "--once", "--", *command, env=environment).stdout == "kept one unset\n"


@pytest.mark.program
@pytest.mark.parametrize("raw", [b"\xff", b"a\0b", b"x" * (128 << 10)], ids=["no UTF-8", "NUL", "too long"])
def test_metadata_that_cannot_be_a_variable_is_left_out(multispool, spool, put, raw):
    """The command runs all the same, and can ask `multispool show`."""
    put("one")
    (spool / "send/one").write_bytes(raw)
    inner = f'"{sys.executable}" -m trio_multispool show "$MULTISPOOL_SPOOL" "$MULTISPOOL_NAME" --json'
    done = multispool(
        "work", spool, "send", "--once", "--", "sh", "-c", f"echo ${{MULTISPOOL_METADATA-unset}}; {inner}"
    )
    assert done.returncode == 0
    told, document = done.stdout.splitlines()
    assert told == "unset"
    assert json.loads(document)["metadata_size"] == len(raw)


def test_the_longest_metadata_that_can_be_a_variable_is_one(multispool, spool, put):
    """The limit is the kernel's, to the byte."""
    put("one")
    (spool / "send/one").write_bytes(b"x" * ((128 << 10) - len("MULTISPOOL_METADATA=") - 1))
    done = multispool("work", spool, "send", "--once", "--", "sh", "-c", "echo ${#MULTISPOOL_METADATA}")
    assert done.stdout == f"{(128 << 10) - len('MULTISPOOL_METADATA=') - 1}\n"


def test_entries_go_where_they_are_sent(multispool, spool, put):
    """Success moves to --done and failure to --failed, metadata and data unchanged; some failed is exit code 6."""
    for name in ("a", "b", "c"):
        put(name, data=name, meta=META)
    done = multispool(
        *["work", spool, "send", "--once", "--done", "retry", "--failed", "failed", "--", "grep", "-q", "[ac]"]
    )
    assert done.returncode == 6
    assert done.stderr.splitlines() == [
        "multispool: a: done, moved to retry",
        "multispool: b: failed (exit status 1), now in failed",
        "multispool: c: done, moved to retry",
        "multispool: done 2, failed 1",
    ]
    assert where(spool) == {"retry/a": META, "failed/b": META, "retry/c": META}
    assert (spool / ".data/b").read_text() == "b"


def test_once_tries_each_entry_once(multispool, spool, put, tmp_path):
    """What failed and went back is not tried a second time in the same run."""
    for name in ("a", "b", "c"):
        put(name, meta=META)
    command = ["sh", "-c", "echo $MULTISPOOL_NAME >> tried; exit 3"]
    done = multispool("work", spool, "send", "--once", "--jobs", "2", "--json", "--", *command)
    assert done.returncode == 6
    assert sorted((tmp_path / "tried").read_text().split()) == ["a", "b", "c"]
    told = sorted(map(json.loads, done.stderr.splitlines()), key=lambda line: line.get("name", "z"))
    expected = [{"name": name, "outcome": "failed", "status": 3, "queue": "send"} for name in "abc"]
    assert told == [*expected, {"done": 0, "failed": 3, "returned": 0, "cancelled": 0}]
    assert where(spool) == {f"send/{name}": META for name in "abc"}


def test_quiet_tells_the_sum_only(multispool, spool, put):
    """With --quiet there is no line for each entry."""
    put("a")
    assert multispool("work", spool, "send", "--once", "-q", "--", "true").stderr == "multispool: done 1, failed 0\n"


def test_work_waits_for_entries_until_it_is_stopped(multispool, spool, put, gate):
    """Without --once an entry that is enqueued later is worked on too."""
    worker = multispool.start("work", spool, "send", "--", *gate.command())
    for name in ("one", "two"):
        put(name)
        gate.wait_begun()
        gate.let_go()
        assert worker.stderr.readline() == f"multispool: {name}: done\n"
    worker.send_signal(signal.SIGTERM)
    _, told = worker.communicate()
    assert (worker.returncode, told) == (143, "multispool: done 2, failed 0\n")


def test_as_many_commands_run_at_a_time_as_asked_for(multispool, spool, put, gate):
    """With --jobs 2, two have begun before either has ended."""
    put("one")
    put("two")
    worker = multispool.start("work", spool, "send", "--jobs", "2", "--once", "--", *gate.command())
    assert gate.wait_begun() != gate.wait_begun()
    gate.let_go()
    gate.let_go()
    _, told = worker.communicate()
    assert worker.returncode == 0
    assert told.endswith("multispool: done 2, failed 0\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_commands_and_returns_their_entries(multispool, spool, put, gate, number):
    """Every entry is in its queue, unchanged, neither in --done nor in --failed; no command runs on."""
    put("one", meta=META)
    put("two", meta=META)
    worker = multispool.start(
        *["work", spool, "send", "--jobs", "2", "--failed", "failed", "--done", "retry", "--", *gate.command()]
    )
    commands = {gate.wait_begun(), gate.wait_begun()}
    assert sorted(where(spool)) == ["send/.checkout/one", "send/.checkout/two"]
    worker.send_signal(number)
    _, told = worker.communicate()
    assert worker.returncode == 128 + number
    assert sorted(told.splitlines()) == [
        "multispool: done 0, failed 0, returned 2",
        "multispool: one: returned to send",
        "multispool: two: returned to send",
    ]
    assert where(spool) == {"send/one": META, "send/two": META}
    assert not any(map(is_running, commands))


def test_a_signal_reaches_what_a_shell_has_started(multispool, spool, put, gate):
    """The command's whole process group is ended, not only its first process."""
    put("one")
    below = ["sh", "-c", 'sh -c "$0" & wait', gate.command()[2]]
    worker = multispool.start("work", spool, "send", "--", *below)
    inner = gate.wait_begun()
    worker.terminate()
    worker.communicate()
    assert not is_running(inner)


def test_a_second_signal_kills_what_does_not_end(multispool, spool, put, gate):
    """A command that ignores SIGTERM is killed at once when somebody presses Ctrl-C again; its entry goes back."""
    put("one", meta=META)
    deaf = gate.command(before=f"trap 'echo $$ > \"{gate.begun}\"' TERM")
    worker = multispool.start(
        "work", spool, "send", "--", "sh", "-c", f"{deaf[2]}; while :; do read line < {gate.go}; done"
    )
    command = gate.wait_begun()
    worker.send_signal(signal.SIGINT)
    assert gate.wait_begun() == command  # it got SIGTERM, and goes on
    worker.send_signal(signal.SIGINT)
    worker.communicate()
    assert worker.returncode == 130
    assert not is_running(command)
    assert where(spool) == {"send/one": META}


@pytest.mark.program
def test_a_hangup_that_is_ignored_stays_ignored(multispool, spool, put, gate):
    """Under `nohup` the work goes on when the terminal goes."""
    put("one")
    worker = multispool.start(
        *["work", spool, "send", "--once", "--", *gate.command()],
        anew=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    gate.wait_begun()
    worker.send_signal(signal.SIGHUP)
    gate.let_go()
    worker.communicate()
    assert worker.returncode == 0
    assert where(spool) == {}


def test_a_killed_work_gives_its_entry_back(multispool, spool, put, gate):
    """After SIGKILL the entry is as it was, and the next worker gets it."""
    put("one", data="precious", meta=META)
    worker = multispool.start("work", spool, "send", "--", *gate.command())
    command = gate.wait_begun()
    worker.kill()
    worker.wait()
    os.kill(command, signal.SIGKILL)
    assert where(spool) == {"send/.checkout/one": META}
    assert multispool("work", spool, "send", "--once", "--", "cat").stdout == "precious"
    assert where(spool) == {}


def test_a_command_that_dies_of_its_own_signal_has_failed(multispool, spool, put):
    """SIGTERM that came from elsewhere, without one for us, is a failure like any other."""
    put("one", meta=META)
    done = multispool("work", spool, "send", "--once", "--failed", "failed", "--", "sh", "-c", "kill -TERM $$")
    assert done.returncode == 6
    assert done.stderr.startswith("multispool: one: failed (killed by SIGTERM), now in failed\n")
    assert where(spool) == {"failed/one": META}


def test_a_failed_entry_is_kept_for_a_while_before_it_goes_back(multispool, spool, put):
    """It is not tried again and again in a hot loop; stopping cuts the wait short."""
    put("one", meta=META)
    worker = multispool.start("work", spool, "send", "--retry-delay", "86400", "--", "false")
    assert worker.stderr.readline() == "multispool: one: failed (exit status 1), now in send\n"
    multispool.done("ls", spool)  # time enough for a second try, if there were one
    assert where(spool) == {"send/.checkout/one": META}
    worker.terminate()
    _, told = worker.communicate()
    assert (worker.returncode, told) == (143, "multispool: done 0, failed 1\n")
    assert where(spool) == {"send/one": META}


def test_a_failed_entry_without_delay_is_tried_again(multispool, spool, put):
    """What goes back is worked on again."""
    put("one")
    worker = multispool.start("work", spool, "send", "--retry-delay", "0", "--", "false")
    for _ in range(3):
        assert worker.stderr.readline() == "multispool: one: failed (exit status 1), now in send\n"
    worker.terminate()
    worker.communicate()
    assert worker.returncode == 143
    assert sorted(where(spool)) == ["send/one"]


def test_a_command_that_does_not_exist_is_told_before_anything_is_checked_out(multispool, spool, put, snapshot):
    """Exit code 1, at once, also if the queue is empty."""
    put("one")
    before = snapshot(spool / "send")
    for queue in ("send", "retry"):
        done = multispool("work", spool, queue, "--", "no-such-command", "x")
        assert done.returncode == 1
        assert done.stderr == "multispool: cannot start 'no-such-command': command not found\n"
    assert snapshot(spool / "send") == before


def test_a_command_that_cannot_be_started_ends_the_work_and_returns_the_entry(multispool, spool, put, tmp_path):
    """Exit code 1; nothing is counted as failed."""
    put("one", meta=META)
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    done = multispool("work", spool, "send", "--failed", "failed", "--", script)
    assert done.returncode == 1
    assert done.stderr == (
        "multispool: one: returned to send\n"
        "multispool: done 0, failed 0, returned 1\n"
        f"multispool: cannot start '{script}': No such file or directory\n"
    )
    assert where(spool) == {"send/one": META}


def test_an_entry_without_data_has_failed(multispool, spool, put):
    """Somebody took its data file: the command is not run on nothing, and the other entries are worked on."""
    put("one")
    put("two")
    (spool / ".data/one").unlink()
    done = multispool("work", spool, "send", "--once", "--failed", "failed", "--", "cat")
    assert (done.returncode, done.stdout) == (6, "Hello")
    assert "one: failed (its data cannot be read: No such file or directory), now in failed\n" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "--jobs must be at least 1, not 0"),
        (["--jobs", "-3"], "--jobs must be at least 1, not -3"),
        (["--retry-delay=-1"], "not a duration: '-1'; write 90, 10m, 1h30m or 2d"),
        (["--retry-delay", "nan"], "not a duration: 'nan'; write 90, 10m, 1h30m or 2d"),
        (["--attempts", "0", "--failed", "failed"], "--attempts must be at least 1, not 0"),
        (["--attempts", "3"], "--attempts needs --failed QUEUE, for entries whose attempts are used up"),
        (["--done", "send"], "--done must be another queue, or the work would never end"),
        (["--failed", "send"], "--failed must be another queue; without it, entries that failed go back"),
    ],
)
def test_work_refuses_wrong_usage(multispool, spool, words, message):
    """Exit code 2, and one line that says what is wrong."""
    refused = multispool.here("work", spool, "send", *words, "--", "true")
    assert (refused.returncode, refused.stderr) == (2, f"multispool: {message}\n")


@pytest.mark.parametrize("words", [["nosuch"], ["send", "--done", "nosuch"], ["send", "--failed", "nosuch"]])
def test_work_names_the_queues_there_are(multispool, spool, put, words):
    """A queue that does not exist is exit code 3, before anything is checked out."""
    put("one")
    refused = multispool.here("work", spool, *words, "--once", "--", "true")
    assert refused.returncode == 3
    assert refused.stderr == f"multispool: there is no queue 'nosuch' in '{spool}'; it has: failed, retry, send\n"
    assert sorted(where(spool)) == ["send/one"]


def test_options_after_the_dashes_are_the_commands(multispool, spool, put):
    """`--help`, `-q` and another `--` reach the command as they are."""
    put("one")
    command = ["printf", "%s ", "--help", "-q", "--", "--jobs", "x"]
    assert multispool("work", spool, "send", "--once", "--", *command).stdout == "--help -q -- --jobs x "


@pytest.mark.program
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reading_standard_error_does_not_stop_the_work(multispool, spool, put, unbuffered):
    """A closed pipe takes away the lines, not the work, and makes no exit code of its own, buffered or not."""
    for name in ("a", "b", "c"):
        put(name)
    reading, writing = os.pipe()
    os.close(reading)
    buffering = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    work = ("work", spool, "send", "--once", "--", "true")
    done = multispool.anew(*work, capture_output=False, stderr=writing, env=buffering)
    os.close(writing)
    assert done.returncode == 0
    assert where(spool) == {}


@pytest.mark.program
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_complaint_that_cannot_be_written_leaves_the_exit_code_as_it_is(multispool, spool, unbuffered):
    """On a full disk, for example: a script sees what kind of trouble it was."""
    buffering = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        done = multispool.anew("show", spool, "nobody", capture_output=False, stderr=full, env=buffering)
    assert done.returncode == 3


def test_ctrl_c_in_the_terminal_returns_the_entry_and_fails_nothing(multispool, spool, put, gate, tmp_path):
    """The terminal sends SIGINT to a whole process group: the command is not in ours, so it cannot fail of it first."""
    put("one", meta=META)
    pressed = []

    def press(shown, terminal):
        if not pressed and b"0/1" in shown:
            pressed.append(gate.wait_begun())
            os.write(terminal, b"\x03")

    code, shown = multispool.on_terminal(
        *[
            "work",
            "spool",
            "send",
            "--once",
            "--failed",
            "failed",
            "--",
            *gate.command("trap 'touch interrupted' INT; trap 'exit 9' TERM"),
        ],
        at=press,
    )
    assert code == 130
    assert "one: returned to send" in shown
    assert not (tmp_path / "interrupted").exists()
    assert "\x1b[33m" in shown  # in yellow
    assert where(spool) == {"send/one": META}


def test_once_shows_its_progress_on_a_terminal(multispool, spool, put, gate):
    """A person sees how far the work is; without a terminal there is no trace of a bar."""
    put("one")
    put("two")
    begun = []

    def release(shown, terminal):
        if (len(begun) == 0 and b"0/2" in shown) or (len(begun) == 1 and b"1/2" in shown):
            begun.append(gate.wait_begun())
            gate.let_go()

    code, shown = multispool.on_terminal("work", "spool", "send", "--once", "--", *gate.command(), at=release)
    assert code == 0
    assert len(begun) == 2
    assert "━" in shown
    assert "\x1b[32mmultispool: one: done" in shown
    assert "multispool: done 2, failed 0" in shown
    assert "\x1b[?25h" in shown  # the cursor is back


def test_several_queues_are_worked_off_each_in_its_share(multispool, spool, put, tmp_path):
    """The command is told the queue of each entry; what fails goes where all of it goes."""
    for name in "abc":
        put(name)
    for name in "de":
        put(name, queue="retry")
    told = tmp_path / "told"
    command = ["sh", "-c", f'echo "$MULTISPOOL_QUEUE $MULTISPOOL_NAME" >> {told}; test $MULTISPOOL_NAME != d']
    done = multispool("work", spool, "send=2,retry=1", "--once", "--failed", "failed", "--", *command)
    assert done.returncode == Exit.SOME_FAILED
    lines = told.read_text().split("\n")[:-1]
    assert sorted(lines) == ["retry d", "retry e", "send a", "send b", "send c"]
    assert {line.split()[0] for line in lines[:3]} == {"send", "retry"}
    assert state_of(spool).names("failed") == ["d"]


def test_with_attempts_an_entry_of_several_queues_is_tried_again_in_its_own(multispool, spool, put):
    """And its history tells so."""
    put("a", queue="retry")
    tries = ["--attempts", "1", "--failed", "failed"]
    multispool("work", spool, "send,retry", "--once", *tries, "--", "false")
    assert state_of(spool).names("failed") == ["a"]
    assert ", retry, " in multispool.done("show", spool, "a")


@pytest.mark.parametrize(
    ("queues", "code", "told"),
    [
        ("send,sent", Exit.NOT_FOUND, "there is no queue 'sent'"),
        ("send=x", Exit.NOT_FOUND, "there is no queue 'send=x'"),
        ("send=0,retry=1", Exit.USAGE, "the weight of 'send' must be above 0"),
        ("send,failed", Exit.USAGE, "--failed must be another queue"),
    ],
)
def test_queues_that_cannot_be_meant_are_refused(multispool, spool, queues, code, told):
    """In one line."""
    refused = multispool("work", spool, queues, "--once", "--failed", "failed", "--", "true")
    assert refused.returncode == code, refused
    assert told in refused.stderr
