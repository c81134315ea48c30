"""`multispool put`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from helpers.spools import state_of

GENERATED = re.compile(r"\d{8}T\d{6}\.\d{9}Z-[0-9a-f]{8}")


def contents(directory):
    """Return the names of a directory's files."""
    return sorted(path.name for path in directory.iterdir() if path.is_file())


def test_put_makes_an_entry_of_each_file_in_their_order(multispool, spool, tmp_path):
    """Each file is an entry's data, and the names that are printed sort as the files were given."""
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 3)
    names = multispool.done("put", spool, "send", "b", "a").split()
    assert all(GENERATED.fullmatch(name) for name in names)
    assert contents(spool / "send") == names == sorted(names)
    assert [(spool / ".data" / name).read_bytes() for name in names] == [b"bbb", b"aaa"]
    assert [(spool / "send" / name).read_bytes() for name in names] == [b"{}", b"{}"]


def test_put_takes_standard_input_under_a_name_of_the_callers(multispool, spool):
    """`-` is standard input, byte for byte, and `--json` tells what was made."""
    data = bytes(range(256)) * 10_000
    done = multispool("put", spool, "send", "-", "--name", "order-7", "--json", input=data, text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == {"name": "order-7", "queue": "send", "file": "-"}
    assert (spool / ".data/order-7").read_bytes() == data


def test_put_stores_metadata_as_it_was_written(multispool, spool):
    """Values that are JSON keep their spelling, others are strings, and no key is invented."""
    meta = [
        "to=anne",
        "n=0.10",
        "big=12345678901234567890123",
        "ok=true",
        'l=["a", 1]',
        "zip=007",
        "x=a=b",
        "e=",
    ]
    multispool.done("put", spool, "send", "-", "--name", "a", *(word for pair in meta for word in ("--meta", pair)))
    assert (spool / "send/a").read_text() == (
        '{"to":"anne","n":0.10,"big":12345678901234567890123,"ok":true,"l":["a", 1],"zip":"007","x":"a=b","e":""}'
    )
    multispool.done("put", spool, "send", "-", "--name", "b", "--meta-json", '{"deep": {"n": 1.0}}')
    assert (spool / "send/b").read_text() == '{"deep": {"n": 1.0}}'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--meta", "novalue"], "--meta wants key=value, not 'novalue'"),
        (["--meta", "=1"], "--meta wants key=value, not '=1'"),
        (["--meta", "a=1", "--meta", "a=2"], "--meta gives 'a' twice"),
        (["--meta-json", "{nope"], "--meta-json is not JSON: {nope"),
        (["--meta-json", ""], "--meta-json is not JSON: "),
        (["--meta-json", "[" * 60000 + "]" * 60000], "--meta-json is not JSON: " + "[" * 60000 + "]" * 60000),
        (["--meta", "a=1", "--meta-json", "{}"], "--meta and --meta-json exclude each other"),
        (["/dev/null", "--name", "x"], "--name is for a single file"),
        (["-"], "standard input (-) can be enqueued only once"),
        (["--name", "a/b"], "'a/b' cannot be a name: it contains a slash"),
        (["--bogus"], "unknown option --bogus; see multispool put --help"),
    ],
)
def test_put_refuses_wrong_usage_and_enqueues_nothing(multispool, spool, words, message):
    """Wrong usage is exit code 2 and one line that says what is wrong."""
    refused = multispool.here("put", spool, "send", "-", *words)
    assert (refused.returncode, refused.stderr) == (2, f"multispool: {message}\n")
    assert contents(spool / "send") == contents(spool / ".registry") == []


def test_put_refuses_a_name_that_is_taken(multispool, spool, put):
    """The entry that has the name stays as it was."""
    put("one", queue="failed")
    refused = multispool("put", spool, "send", "-", "--name", "one", input="new")
    assert refused.returncode == 4
    assert refused.stderr == "multispool: -: an entry named 'one' already exists in this spool\n"
    assert (spool / ".data/one").read_text() == "Hello"


def test_put_names_the_queues_there_are(multispool, spool):
    """A queue that does not exist is exit code 3, and is not made."""
    refused = multispool.here("put", spool, "snd", "-")
    assert refused.returncode == 3
    assert (
        refused.stderr
        == f"multispool: there is no queue 'snd' in '{spool}'; it has: failed, retry, send; did you mean 'send'?\n"
    )
    assert not (spool / "snd").exists()


def test_put_looks_at_all_files_before_it_enqueues_the_first(multispool, spool, tmp_path):
    """A file that is missing, or a directory, enqueues nothing."""
    (tmp_path / "a").touch()
    missing = multispool("put", spool, "send", "a", "nosuch")
    assert (missing.returncode, missing.stderr) == (1, "multispool: cannot read 'nosuch': No such file or directory\n")
    directory = multispool("put", spool, "send", "a", ".")
    assert (directory.returncode, directory.stderr) == (1, "multispool: cannot read '.': it is a directory\n")
    assert contents(spool / "send") == []


def test_put_stops_at_the_first_file_that_cannot_be_read(multispool, spool, tmp_path):
    """What was enqueued before stays, nothing of the file that failed is left, and the message counts."""
    (tmp_path / "a").touch()
    failed = multispool("put", spool, "send", "a", "/proc/self/mem", "a")
    assert failed.returncode == 1
    assert failed.stderr == "multispool: cannot read '/proc/self/mem': Input/output error; 1 of 3 files were enqueued\n"
    assert contents(spool / "send") == contents(spool / ".data") == failed.stdout.split()
    assert contents(spool / ".tmp") == []


@pytest.mark.program
def test_put_does_not_keep_data_in_memory(spool, tmp_path):
    """A file many times larger than what the process may use is copied piece by piece."""
    size = 256 << 20
    with open(tmp_path / "large", "wb") as file:
        file.truncate(size)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, "put", spool, "send", tmp_path / "large", "--name", "large"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert (spool / ".data/large").stat().st_size == size
    assert 0 < int(done.stderr) * 1024 < size // 2


_MEASURED = """
import re, runpy, sys
try:
    runpy.run_module("trio_multispool", run_name="__main__")
finally:  # what wait4 says of a child starts with the memory of the process that it was started by
    print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_put_that_waits_for_a_pipe_is_ended_by_a_signal_and_leaves_nothing(multispool, spool, tmp_path, number):
    """The exit code tells the signal, and neither an entry nor a part of one is left."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_text("a")
    process = multispool.start("put", spool, "send", "a", "pipe", "a")
    with open(tmp_path / "pipe", "wb", buffering=0) as pipe:  # opens when `put` has opened its end
        pipe.write(b"part")
        process.send_signal(number)
        _, told = process.communicate()
    assert process.returncode == 128 + number
    assert told == "multispool: interrupted; 1 of 3 files were enqueued\n"
    assert len(contents(spool / "send")) == len(contents(spool / ".data")) == len(contents(spool / ".registry")) == 1
    assert contents(spool / ".tmp") == []


def test_put_says_so_if_nobody_reads_the_names(multispool, spool, tmp_path):
    """A closed pipe must not hide that files were left out."""
    (tmp_path / "a").touch()
    reading, writing = os.pipe()
    os.close(reading)
    ended = multispool("put", spool, "send", "a", "a", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert ended.returncode == 8
    [name] = contents(spool / "send")
    told = f"standard output was closed; all the same: a was enqueued as {name}; 1 of 2 files were enqueued"
    assert ended.stderr == f"multispool: {told}\n"


def test_put_shows_its_progress_on_a_terminal(multispool, spool, tmp_path):
    """A person who waits sees a bar, which is gone in the end, and the names above it."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_text("a")
    pipes = []

    def feed(shown, terminal):
        if "━" in shown.decode(errors="ignore") and not pipes:
            pipes.append(os.open(tmp_path / "pipe", os.O_WRONLY))
            os.close(pipes[0])

    code, shown = multispool.on_terminal("put", "spool", "send", "a", "pipe", at=feed)
    assert code == 0
    assert len(pipes) == 1
    assert GENERATED.findall(shown) == contents(spool / "send")
    assert shown.rstrip().endswith("\x1b[2K")  # the line of the bar is erased


# Once, and at a time


def test_a_name_may_be_put_once(multispool, spool):
    """It is taken while there is an entry, and with `--remember` for some time after; `--if-absent` makes no fuss."""
    command = ["put", spool, "send", "-", "--name", "order-17", "--remember", "1h"]
    assert multispool.done(*command, input="") == "order-17\n"
    again = multispool(*command, input="")
    assert (again.returncode, "already exists" in again.stderr) == (4, True)
    assert multispool.done(*command, "--if-absent", input="") == ""
    multispool.done("rm", spool, "order-17")
    again = multispool(*command, input="")
    assert (again.returncode, "is remembered" in again.stderr) == (4, True)
    assert multispool.done(*command, "--if-absent", input="") == ""
    assert state_of(spool).entries() == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--remember", "1h"], "say which, by --name"),
        (["--if-absent"], "say which, by --name"),
        (["--name", "a", "--remember", "soon"], "not a duration: 'soon'"),
    ],
)
def test_what_makes_no_sense_about_a_name_is_refused(multispool, spool, options, message):
    """With the exit code for wrong usage, and nothing is enqueued."""
    found = multispool("put", spool, "send", "-", *options, input="")
    assert (found.returncode, message in found.stderr) == (2, True)
    assert state_of(spool).entries() == set()


def test_enqueue_at_is_put_at_a_time(multispool, spool):
    """With the same options; a time that has come is none."""
    multispool.done("enqueue-at", spool, "send", "2096-01-01T00:00Z", "-", "--name", "a", "--meta", "to=anne", input="")
    multispool.done("enqueue-at", spool, "send", "2001-01-01T00:00Z", "-", "--name", "b", input="")
    assert (spool / "send/.waiting/a").stat().st_mtime == 3976214400
    assert json.loads((spool / "send/.waiting/a").read_bytes()) == {"to": "anne"}
    assert state_of(spool).names("send") == ["b"]
    wrong = multispool("enqueue-at", spool, "send", "noon", "-", input="")
    assert (wrong.returncode, "not a time: 'noon'" in wrong.stderr) == (2, True)
