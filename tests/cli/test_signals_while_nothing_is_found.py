"""A signal ends a command that looks through a large spool and finds nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers.spools import state_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .conftest import Multispool

MANY = 300
FAR = 2**31 - 1
"""A time to come, which any file system keeps."""

ENOUGH = 200
"""More looks than a command may still make once it was signalled, and fewer than there are entries."""
WENT_ON = 99

HELD_UP = f"""
import importlib, os, sys
from trio_multispool.cli import main
module, _, name = sys.argv[1].partition(":")
owner = importlib.import_module(module)
*inner, name = name.split(".")
for each in inner:
    owner = getattr(owner, each)
look, looks = getattr(owner, name), 0

def looking(*arguments, **options):
    global looks
    looks += 1
    if looks == 1:
        print("looking", file=sys.stderr, flush=True)
        sys.stdin.readline()
    elif looks > {ENOUGH}:
        os._exit({WENT_ON})
    return look(*arguments, **options)

setattr(owner, name, looking)
sys.exit(main(sys.argv[2:]))
"""
"""The command, which waits for a line at its first look, and ends in its own way if it goes on for too long."""

DIRECTORY = "trio_multispool.storage.directory"
PLACES = f"{DIRECTORY}.disk.layout:Layout.where_are"
NAMES = f"{DIRECTORY}.recovery:lock_existing"
MEMORY = f"{DIRECTORY}.remembered:_until"
METADATA = "trio_multispool.cli.selecting:Criteria.fit_metadata"
NOBODY = ["--meta", "to=nobody"]

LOOKING = {
    "recover, in the sweep": ("send", PLACES, ["recover", "SPOOL"], "recovered"),
    "recover, of check-outs": ("send/.checkout", NAMES, ["recover", "SPOOL"], "recovered"),
    "recover, of remembered names": (".keys", MEMORY, ["recover", "SPOOL"], "recovered"),
    "quarantine drop": (".quarantine/send", METADATA, ["quarantine", "drop", "SPOOL", *NOBODY], "dropped"),
    "quarantine retry": (".quarantine/send", METADATA, ["quarantine", "retry", "SPOOL", *NOBODY], "put back"),
    "rm": ("send", METADATA, ["rm", "SPOOL", *NOBODY], "removed"),
    "mv": ("send", METADATA, ["mv", "SPOOL", "failed", *NOBODY], "moved to failed"),
}
"""Where the files are, what is held up, the command, and what it did to no entry."""


@pytest.fixture
def held() -> Iterator[list[int]]:
    """Return a list for the descriptors of locks; they are closed with the test."""
    fds: list[int] = []
    yield fds
    for fd in fds:
        os.close(fd)


def fill(spool: Path, where: str, held: list[int]) -> None:
    """Make many files, with nothing to do about any: entries with all that belongs to them, or names to remember."""
    (spool / where).mkdir(parents=True, exist_ok=True)
    for number in range(MANY):
        name = f"e{number:03}"
        path = spool / where / name
        path.write_bytes(b'{"to":"anne"}')
        if where == ".keys":
            path.write_bytes(b'{"remember":1e9}\n')
            os.utime(path, (FAR, FAR))
            continue
        (spool / ".data" / name).touch()
        (spool / ".registry" / name).touch()
        if where.endswith(".checkout"):  # somebody has it
            held.append(os.open(spool / ".registry" / name, os.O_RDWR))
            fcntl.flock(held[-1], fcntl.LOCK_EX)


def start_held_up(multispool: Multispool, held_up: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start the command, and wait until it is at its first look."""
    process = multispool.start(held_up, *arguments, code=HELD_UP, stdin=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == "looking\n"
    return process


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("what", LOOKING)
def test_the_first_signal_ends_a_command_that_finds_nothing(multispool, spool, held, what, number, as_json):  # noqa: PLR0913, PLR0917  # fixtures
    """It looks at a few more entries at most. What it did is told, JSON is whole, and no entry is in hand."""
    where, held_up, command, done = LOOKING[what]
    fill(spool, where, held)
    before = state_of(spool)
    arguments = [os.fspath(spool) if each == "SPOOL" else each for each in command]
    process = start_held_up(multispool, held_up, [*arguments, *(["--json"] if as_json else [])])
    process.send_signal(number)
    out, err = process.communicate("go on\n")
    assert process.returncode == 128 + number
    assert err == f"multispool: interrupted; 0 entries were {done}\n"
    assert state_of(spool) == before
    if as_json:
        found = json.loads(out)
        assert (found["recovered"] if done == "recovered" else found) == []


NAMING = {
    "quarantine drop": ("trio_multispool.cli.commands.quarantine:find", ["quarantine", "drop"], "dropped"),
    "quarantine retry": ("trio_multispool.cli.commands.quarantine:find", ["quarantine", "retry"], "put back"),
    "rm": ("trio_multispool.cli.checkouts:find", ["rm"], "removed"),
}
"""What is held up, the command, and what it did to no entry."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("what", NAMING)
def test_the_first_signal_ends_a_command_whose_names_are_not_there(multispool, spool, what, number):
    """It looks for a few more names at most, and tells the trouble with those that it has looked for."""
    held_up, command, done = NAMING[what]
    process = start_held_up(multispool, held_up, [*command, os.fspath(spool), *(f"e{each}" for each in range(MANY))])
    process.send_signal(number)
    out, err = process.communicate("go on\n")
    assert (process.returncode, out) == (128 + number, "")
    told = err.splitlines()
    assert told[0] == f"multispool: there is no entry 'e0' in '{spool}'"
    assert told[-1] == f"multispool: interrupted; 0 entries were {done}"
