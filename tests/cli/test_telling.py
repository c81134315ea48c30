"""What was done and cannot be told on standard output; and what nobody may be told as it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile

import pytest

from helpers.spools import state_of
from helpers.stores import claim, enqueue, make_store
from trio_multispool.model.attempts import ATTEMPTS, Attempt, Failure, History, encode_history
from trio_multispool.model.notes import PROGRESS, encode_progress

DOING = {
    "put": (["put", "SPOOL", "send", "/dev/null", "--name", "new"], "/dev/null was enqueued as new"),
    "put --json": (["put", "SPOOL", "send", "/dev/null", "--name", "new", "--json"], "/dev/null was enqueued as new"),
    "mv --json": (["mv", "SPOOL", "one", "failed", "--json"], '[{"name":"one","from":"send","to":"failed"}]'),
    "rm": (["rm", "SPOOL", "--older-than", "0", "--from", "send"], "1 entry removed"),
    "expire": (["expire", "SPOOL", "send", "--max-count", "0"], "1 entry removed"),
    "recover": (["recover", "SPOOL"], "left: was collected, it belonged to no entry"),
    "create": (["create", "SPOOL", "more"], "SPOOL was there; added more"),
    "create --json": (
        ["create", "SPOOL", "more", "--json"],
        '{"spool":"SPOOL","queues":["failed","more","retry","send"],"created":["more"]}',
    ),
    "fsck --repair": (
        ["fsck", "SPOOL", "--repair"],
        "the reservation of 'left' in .registry belongs to no entry (0s): deleted",
    ),
    "quarantine drop": (["quarantine", "drop", "SPOOL", "aside"], "aside: was dropped"),
}
"""What changes something, and what it says of that."""

CLOSED = (
    'import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, "-m", "trio_multispool", *sys.argv[1:]])'
)

CANNOT = {
    "is full": "cannot write standard output: No space left on device",
    "is closed": "standard output is closed",
    "has no reader": "standard output was closed",
}


@pytest.fixture
def telling_nobody(multispool, spool):
    """Return a function that runs the command with a standard output that cannot be written."""

    def run(trouble, *command, **options):
        command = [str(spool) if each == "SPOOL" else each for each in command]
        options |= {"stderr": subprocess.PIPE}
        if trouble == "is closed":
            closed = [sys.executable, "-c", CLOSED, *command]
            return subprocess.run(closed, cwd=multispool.directory, text=True, check=False, **options)
        if trouble == "is full":
            out = os.open("/dev/full", os.O_WRONLY)
        else:
            reading, out = os.pipe()
            os.close(reading)
        try:
            return multispool(*command, capture_output=False, stdout=out, **options)
        finally:
            os.close(out)

    return run


@pytest.mark.parametrize("what", DOING)
@pytest.mark.parametrize("trouble", CANNOT)
def test_what_was_done_is_told_on_standard_error_instead(telling_nobody, spool, set_aside, what, trouble):
    """With an exit code of its own, so that a script does not do it again: it has been done."""
    set_aside("aside")
    set_aside("one")
    (spool / ".quarantine" / "send" / "one").rename(spool / "send" / "one")
    (spool / ".registry" / "left").touch()
    before = state_of(spool)
    command, told = DOING[what]
    ended = telling_nobody(trouble, *command)
    said = re.sub(r"\(\d+s\)", "(0s)", ended.stderr)
    assert said == f"multispool: {CANNOT[trouble]}; all the same: {told.replace('SPOOL', str(spool))}\n"
    assert ended.returncode == 8
    assert state_of(spool) != before


@pytest.mark.parametrize("what", ["rm", "expire", "recover", "quarantine drop"])
def test_what_would_be_done_is_not_told_as_done(telling_nobody, spool, set_aside, what):
    """With `--dry-run` it is a failure like that of any command that looks."""
    set_aside("aside")
    (spool / ".registry" / "left").touch()
    before = state_of(spool)
    command, _ = DOING[what]
    ended = telling_nobody("is full", *command, "--dry-run")
    assert (ended.returncode, ended.stderr) == (1, f"multispool: {CANNOT['is full']}\n")
    assert state_of(spool) == before


@pytest.mark.parametrize("trouble", CANNOT)
def test_every_entry_that_was_imported_is_told(telling_nobody, spool, tmp_path, trouble):
    """Small entries are enqueued together: of none is it hidden that it is there."""
    with tarfile.open(tmp_path / "archive", "w") as archive:
        for path in ("a/metadata", "a/data", "b/metadata", "b/data", "c/metadata", "c/data"):
            archive.addfile(tarfile.TarInfo(path))
    with (tmp_path / "archive").open("rb") as given:
        ended = telling_nobody(trouble, "import", "SPOOL", "send", stdin=given)
    assert ended.returncode == 8
    assert state_of(spool).names("send") == ["a", "b", "c"]
    told = [line.partition("all the same: ")[2] for line in ended.stderr.splitlines()]
    assert told == ["b was imported as b", "c was imported as c", "a was imported as a; 3 entries were imported"]


EVIL = "\x1b[31mEVIL\x1b[0m\nmultispool: a line that nobody wrote\r\x9b31m\u202e\u2028"
BIDI = "bidi\u202e\u2066"
"""A name that entries may have; one with control characters is refused."""

LOOKING = [
    ["ls", "SPOOL"],
    ["ls", "SPOOL", "--long"],
    ["ls", "SPOOL", "send"],
    ["ls", "SPOOL", "--ages"],
    ["ls", "SPOOL", EVIL],
    ["stats", "SPOOL"],
    ["show", "SPOOL", BIDI],
    ["show", "SPOOL", f"{BIDI}2"],
    ["show", "SPOOL", EVIL],
    ["cat", "SPOOL", EVIL],
    ["quarantine", "ls", "SPOOL"],
    ["quarantine", "show", "SPOOL", f"{BIDI}3"],
    ["quarantine", "drop", "SPOOL", f"{BIDI}3", "--dry-run"],
    ["fsck", "SPOOL"],
    ["monitor", "SPOOL", "--once"],
    ["recover", "SPOOL", "--dry-run"],
    ["mv", "SPOOL", BIDI, "failed", "--dry-run"],
    ["mv", "SPOOL", EVIL, EVIL],
    ["rm", "SPOOL", EVIL],
    ["retry", "SPOOL", EVIL, EVIL],
    ["expire", "SPOOL", "send", "--max-count", "0", "--dry-run"],
    ["work", "SPOOL", EVIL, "--", EVIL],
    ["work", "SPOOL", "send", "--", EVIL],
    ["put", "SPOOL", EVIL, EVIL],
    ["put", "SPOOL", "send", "/dev/null", "--name", EVIL],
    ["import", "SPOOL", EVIL],
    ["export", "SPOOL", EVIL],
    ["create", f"/{EVIL}/none", EVIL],
    ["adopt", f"/{EVIL}"],
    ["ls", f"/{EVIL}"],
    ["stats", "SPOOL", "--since", EVIL],
    [EVIL],
    ["ls", "SPOOL", f"--{EVIL}"],
]
"""Commands that only look, or refuse."""


@pytest.fixture
def hostile(tmp_path):
    """Make a spool in which everything has been named by an enemy."""
    spool = tmp_path / EVIL
    store = make_store(spool)
    for name in (BIDI, f"{BIDI}2", f"{BIDI}3"):
        enqueue(store, "send", name, b"{}", b"")
    failure = Failure(EVIL, EVIL, (EVIL,), (Failure(EVIL, EVIL),), EVIL)
    attempt = Attempt(1, EVIL, 1.0, EVIL, 1, 2.0, failure)
    held = claim(store, "send", f"{BIDI}2")
    store.annotate(held, ATTEMPTS, encode_history(History(EVIL, 1, (attempt,))))
    store.annotate(held, PROGRESS, encode_progress(0.5, EVIL, 1.0))
    store.quarantine(claim(store, "send", f"{BIDI}3"), EVIL)
    (spool / EVIL / ".checkout").mkdir(parents=True)
    for directory in ("send", ".registry", ".data", ".notes", f"{EVIL}/.checkout", ".quarantine"):
        (spool / directory / EVIL).touch()
    yield spool
    store.close()


@pytest.mark.parametrize("command", LOOKING, ids=lambda command: command[0][:9].strip("\x1b[31m"))
def test_nothing_is_shown_that_a_terminal_would_obey(multispool, hostile, command):
    """In tables, on standard error, in help: names, reasons, errors and arguments are printable."""
    arguments = [str(hostile) if each == "SPOOL" else each for each in command]
    ended = multispool(*arguments, input="")
    shown = ended.stdout + ended.stderr
    assert shown
    assert [line for line in shown.split("\n") if not line.isprintable()] == []
    assert [line for line in shown.split("\n") if line.startswith("multispool: a line")] == []
