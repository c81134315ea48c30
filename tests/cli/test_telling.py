"""What was done and cannot be told on standard output; and what nobody may be told as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile

import pytest

from helpers.spools import state_of

DOING = {
    "put": (["put", "SPOOL", "send", "/dev/null", "--name", "new"], "/dev/null was enqueued as new"),
    "put --json": (["put", "SPOOL", "send", "/dev/null", "--name", "new", "--json"], "/dev/null was enqueued as new"),
    "mv --json": (["mv", "SPOOL", "one", "failed", "--json"], '[{"name":"one","from":"send","to":"failed"}]'),
    "rm": (["rm", "SPOOL", "--older-than", "0", "--from", "send"], "1 entry removed"),
    "expire": (["expire", "SPOOL", "send", "--max-count", "0"], "1 entry removed"),
    "recover": (["recover", "SPOOL"], "left: was collected, it belonged to no entry"),
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
    assert ended.stderr == f"multispool: {CANNOT[trouble]}; all the same: {told}\n"
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
