"""What was done and cannot be told on standard output; and what nobody may be told as it is."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading

import pytest

from helpers.proofs import thinned
from helpers.spools import state_of
from helpers.stores import claim, enqueue, make_store
from trio_multispool.cli import running
from trio_multispool.cli.running import run_telling
from trio_multispool.cli.spools import Done
from trio_multispool.errors import SpoolGone
from trio_multispool.model.attempts import ATTEMPTS, Attempt, Failure, History, encode_history
from trio_multispool.model.notes import PROGRESS, encode_progress
from trio_multispool.storage.directory.store import DirectoryStorage

DOING = {
    "put": (["put", "SPOOL", "send", "/dev/null", "--name", "new"], "/dev/null was enqueued as new"),
    "put --json": (["put", "SPOOL", "send", "/dev/null", "--name", "new", "--json"], "/dev/null was enqueued as new"),
    "mv --json": (["mv", "SPOOL", "one", "failed", "--json"], '[{"name":"one","from":"send","to":"failed"}]'),
    "rm": (["rm", "SPOOL", "--older-than", "0", "--from", "send"], "1 entry removed"),
    "cancel": (["cancel", "SPOOL", "one"], "one: removed from send; 1 entry was cancelled"),
    "cancel --json": (
        ["cancel", "SPOOL", "one", "--json"],
        '[{"name":"one","from":"send","outcome":"removed","owner":null}]',
    ),
    "expire": (["expire", "SPOOL", "send", "--max-count", "0"], "1 entry removed"),
    "recover": (["recover", "SPOOL"], "left: was collected, it belonged to no entry"),
    "create": (["create", "SPOOL", "more"], "SPOOL was there; added more"),
    "create --json": (
        ["create", "SPOOL", "more", "--json"],
        '{"spool":"SPOOL","queues":["failed","more","retry","send"],"created":["more"]}',
    ),
    "fsck --repair": (
        ["fsck", "SPOOL", "--repair"],
        "the reservation of 'left' belongs to no entry (0s): deleted; 1 entry was repaired",
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


@pytest.mark.proof
@pytest.mark.parametrize(
    ("what", "trouble"),
    [
        pytest.param(*case, marks=pytest.mark.program if case[1] == "is closed" else ())
        for case in thinned(itertools.product(DOING, CANNOT), 3)
    ],
)
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


@pytest.mark.parametrize("trouble", ["is full", pytest.param("is closed", marks=pytest.mark.program), "has no reader"])
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


STOPPED = {
    "cancel": (["cancel", "SPOOL", "--all"], "unlink", "/.checkout/b", "cancelled"),
    "rm": (["rm", "SPOOL", "--all"], "unlink", "/.checkout/b", "removed"),
    "mv": (["mv", "SPOOL", "failed", "--all"], "move", "/failed/b", "moved to failed"),
    "retry": (["retry", "SPOOL", "send", "failed", "--all"], "move", "/failed/b", "moved to failed"),
    "expire": (["expire", "SPOOL", "send", "--max-count", "0"], "unlink", "/.checkout/b", "removed"),
}
"""What changes several entries; the call that fails for one of them; and what is done with the others."""


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
@pytest.mark.parametrize("what", STOPPED)
def test_what_was_done_before_an_error_is_told(multispool, spool, put, failing, what, as_json):  # noqa: PLR0913, PLR0917  # fixtures
    """Standard output has it as ever; the error says how many entries it was, and has its exit code."""
    for name in "abc":
        put(name)
    command, call, on, done = STOPPED[what]
    arguments = [str(spool) if each == "SPOOL" else each for each in command]
    with failing.failing(call, errno.EIO, on):
        ended = multispool.here(*arguments, *(["--json"] if as_json else []))
    assert ended.returncode == 1
    assert ended.stderr.startswith("multispool: ")
    assert ended.stderr.endswith(f"; 2 entries were {done}\n")
    assert state_of(spool).names("send") == ["b"]
    if as_json:
        assert sorted(each if what == "expire" else each["name"] for each in json.loads(ended.stdout)) == ["a", "c"]
    else:
        assert ended.stdout.splitlines()[-1] == f"2 entries {done}"
        assert len(ended.stdout.splitlines()) == (3 if what == "cancel" else 1)


@pytest.mark.parametrize("what", STOPPED)
def test_an_error_before_anything_was_done_stands_alone(multispool, spool, put, failing, what):
    """There is nothing to tell of."""
    put("b")
    command, call, on, _ = STOPPED[what]
    with failing.failing(call, errno.EIO, on):
        ended = multispool.here(*[str(spool) if each == "SPOOL" else each for each in command])
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "entries" not in ended.stderr


def test_what_was_done_and_may_not_last_is_told_as_done(multispool, spool, put, failing):
    """An entry that is gone is named, also if nobody knows whether power loss would bring it back."""
    put("a")
    with failing.failing("sync", errno.EIO, "send/.checkout"):
        ended = multispool.here("rm", spool, "a", "--json")
    assert ended.returncode == 1
    assert json.loads(ended.stdout) == [{"name": "a", "from": "send"}]
    assert state_of(spool).names("send") == []


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
@pytest.mark.parametrize("what", ["recover", "quarantine drop"])
def test_what_was_done_before_a_listing_ends_is_told(multispool, spool, set_aside, monkeypatch, what, as_json):  # noqa: PLR0913, PLR0917  # fixtures
    """The exit code is that of the error, and JSON is whole."""
    set_aside("aside")
    (spool / ".registry" / "left").touch()
    for name in ("inventory", "recover_all"):
        monkeypatch.setattr(DirectoryStorage, name, until_it_is_gone(getattr(DirectoryStorage, name)))
    command = ["recover", spool] if what == "recover" else ["quarantine", "drop", spool, "--all"]
    ended = multispool.here(*command, *(["--json"] if as_json else []))
    assert (ended.returncode, ended.stderr) == (5, f"multispool: {SpoolGone('/spool')}\n")
    done = "left" if what == "recover" else "aside"
    if as_json:
        found = json.loads(ended.stdout)
        assert [each["name"] for each in (found["recovered"] if what == "recover" else found)] == [done]
    else:
        assert ended.stdout.startswith(f"{done}: was ")


def until_it_is_gone(listing):
    """Return the listing with an error at its end."""

    def failing(*arguments, **options):
        yield from listing(*arguments, **options)
        raise SpoolGone("/spool")

    return failing


def signalled_at_the_second(listing, number, times):
    """Return the listing, in which a signal comes right before the second entry; it is done by then, if it is to be."""

    def signalling(*arguments, **options):
        for position, found in enumerate(listing(*arguments, **options)):
            if position == 1:
                for _ in range(times):
                    os.kill(os.getpid(), number)
            yield found

    return signalling


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("what", ["recover", "quarantine drop", "quarantine retry"])
def test_a_signal_ends_recovery_and_quarantine_between_two_entries(  # noqa: PLR0913, PLR0917  # fixtures
    multispool, spool, set_aside, monkeypatch, what, number, as_json
):
    """All that was done is told, JSON is whole, and the others are left for the next time."""
    before = {*"abc"}
    for name in before:
        set_aside(name) if what != "recover" else (spool / ".registry" / name).touch()
    for method in ("inventory", "recover_all"):
        signalling = signalled_at_the_second(getattr(DirectoryStorage, method), number, 1)
        monkeypatch.setattr(DirectoryStorage, method, signalling)
    command = ["recover", spool] if what == "recover" else [*what.split(), spool, "--all"]
    ended = multispool.here(*command, *(["--json"] if as_json else []))
    assert ended.returncode == 128 + number
    state = state_of(spool)
    done = before - (state.registry if what == "recover" else {*state.quarantined["send"]})
    were = {"recover": "2 entries were recovered", "quarantine drop": "1 entry was dropped"}
    assert ended.stderr == f"multispool: interrupted; {were.get(what, '1 entry was put back')}\n"
    assert len(done) == (2 if what == "recover" else 1)
    if as_json:
        found = json.loads(ended.stdout)
        assert {each["name"] for each in (found["recovered"] if what == "recover" else found)} == done
    else:
        assert {line.partition(":")[0] for line in ended.stdout.splitlines()} == done


def test_a_second_signal_ends_recovery_at_once(multispool, spool, monkeypatch):
    """What was done before it is told, but for what was in hand."""
    for name in "abc":
        (spool / ".registry" / name).touch()
    signalling = signalled_at_the_second(DirectoryStorage.recover_all, signal.SIGTERM, 2)
    monkeypatch.setattr(DirectoryStorage, "recover_all", signalling)
    ended = multispool.here("recover", spool, "--json")
    assert ended.returncode == 128 + signal.SIGTERM
    assert len(json.loads(ended.stdout)["recovered"]) == 1
    assert len(state_of(spool).registry) == 1


def test_a_dry_run_that_a_signal_ends_says_no_more_than_that(multispool, spool, monkeypatch):
    """Nothing was done."""
    for name in "abc":
        (spool / ".registry" / name).touch()
    signalling = signalled_at_the_second(DirectoryStorage.recover_all, signal.SIGINT, 1)
    monkeypatch.setattr(DirectoryStorage, "recover_all", signalling)
    ended = multispool.here("recover", spool, "--dry-run")
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGINT, "multispool: interrupted\n")
    assert len(ended.stdout.splitlines()) == 2


@pytest.fixture
def known(monkeypatch):
    """Return an event that is set once the command knows that a signal ends it."""
    event = threading.Event()

    class Ending(running.Ending):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "signal" and value is not None:
                event.set()

    monkeypatch.setattr(running, "Ending", Ending)
    return event


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None], ids=["SIGINT", "SIGTERM", "error"])
def test_what_was_repaired_before_a_signal_or_an_error_is_told(  # noqa: PLR0913, PLR0917  # fixtures
    multispool, spool, put, known, monkeypatch, number, as_json
):
    """The repairs of one name belong together, and a signal comes between two names; the error, after all repairs."""
    for name in "abc":
        put(name)
        (spool / "send" / name).unlink()
    repair, examine, looks = DirectoryStorage.recover_name, DirectoryStorage.examine, []

    def signalling(storage, name):
        repaired = repair(storage, name)
        if number is not None:
            os.kill(os.getpid(), number)
            known.wait(10)
        return repaired

    def examining(*arguments):
        looks.append(arguments)
        if number is None and len(looks) > 1:
            raise SpoolGone("/spool")
        return examine(*arguments)

    monkeypatch.setattr(DirectoryStorage, "recover_name", signalling)
    monkeypatch.setattr(DirectoryStorage, "examine", examining)
    ended = multispool.here("fsck", spool, "--repair", *(["--json"] if as_json else []))
    done = [*"abc"] if number is None else ["a"]
    assert sorted({*"abc"} - {*state_of(spool).registry}) == done
    told = f"{SpoolGone('/spool')}; 3 entries were" if number is None else "interrupted; 1 entry was"
    assert ended.stderr == f"multispool: {told} repaired\n"
    assert ended.returncode == (5 if number is None else 128 + number)
    if as_json:
        found = json.loads(ended.stdout)
        assert [(each["name"], each["done"]) for each in found["repairs"]] == [
            (name, True) for name in done for _ in "rd"
        ]
        assert sorted(each["name"] for each in found["problems"]) == [*"aabbcc"]
    else:
        assert len(ended.stdout.splitlines()) == 2 * len(done)
        assert ended.stdout.count(": deleted\n") == 2 * len(done)


def test_an_error_keeps_its_exit_code_when_something_was_done_before(capsys):
    """A script sees why it ended: here, that the spool is gone."""
    done = Done()

    async def work(_ending):
        done.entries.append(("a", "send"))
        raise SpoolGone("/spool")

    assert run_telling(work, done.entries, "removed") == 5
    assert capsys.readouterr().err == f"multispool: {SpoolGone('/spool')}; 1 entry was removed\n"


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
def test_what_was_done_before_a_signal_is_told(multispool, spool, put, gate, as_json):
    """The command that is asked for the second entry never answers: that entry stays, and so does the third."""
    for name in "abc":
        put(name)
    more = ["--json"] if as_json else []
    expiring = multispool.start("expire", spool, "send", "--max-count", "0", *more, "--", *gate.command())
    gate.wait_begun()
    gate.let_go()
    gate.wait_begun()
    expiring.send_signal(signal.SIGTERM)
    out, err = expiring.communicate()
    assert expiring.returncode == 128 + signal.SIGTERM
    assert err == "multispool: interrupted; 1 entry was removed\n"
    left = state_of(spool).names("send")
    assert len(left) == 2
    if as_json:
        assert json.loads(out) == sorted({*"abc"} - {*left})
    else:
        assert out == "1 entry removed\n"


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
    ["cancel", "SPOOL", BIDI, "--dry-run"],
    ["cancel", "SPOOL", EVIL],
    ["cancel", "SPOOL", BIDI],
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

IN_JSON = [
    ["ls", "SPOOL"],
    ["ls", "SPOOL", "send", "--long"],
    ["stats", "SPOOL"],
    ["show", "SPOOL", f"{BIDI}2"],
    ["show", "SPOOL", f"{BIDI}4"],
    ["quarantine", "ls", "SPOOL"],
    ["quarantine", "show", "SPOOL", f"{BIDI}3"],
    ["quarantine", "drop", "SPOOL", f"{BIDI}3"],
    ["fsck", "SPOOL"],
    ["monitor", "SPOOL", "--once"],
    ["recover", "SPOOL", "--dry-run"],
    ["put", "SPOOL", "send", "/dev/null", "--name", f"{BIDI}5"],
    ["mv", "SPOOL", BIDI, "failed"],
    ["rm", "SPOOL", "--all"],
    ["cancel", "SPOOL", BIDI],
    ["retry", "SPOOL", "send", "failed", "--all"],
    ["expire", "SPOOL", "send", "--max-count", "0"],
    ["work", "SPOOL", "send", "--once", "--", "true"],
    ["adopt", "SPOOL"],
]
"""Commands that write JSON."""


@pytest.fixture
def hostile(tmp_path):
    """Make a spool in which everything has been named by an enemy."""
    spool = tmp_path / EVIL
    store = make_store(spool)
    for name in (BIDI, f"{BIDI}2", f"{BIDI}3"):
        enqueue(store, "send", name, b"{}", b"")
    enqueue(store, "send", f"{BIDI}4", json.dumps({EVIL: [EVIL]}, ensure_ascii=False, indent=1).encode(), b"")
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


@pytest.mark.parametrize("command", IN_JSON, ids=lambda command: command[0])
def test_nor_is_it_in_json(multispool, hostile, command):
    """Each document is one line, and a script finds the names in it as they are."""
    arguments = [str(hostile) if each == "SPOOL" else each for each in command]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    ended = multispool(*arguments[:at], "--json", *arguments[at:], input="")
    shown = [line for line in (ended.stdout + ended.stderr).split("\n") if line]
    assert [line for line in shown if not line.isprintable()] == []
    documents = [json.loads(line) for line in shown if line[0] in "[{"]
    assert documents
    assert any(EVIL in said or BIDI in said for said in strings_in(documents))


def strings_in(value):
    """Return all strings in a JSON value."""
    if isinstance(value, dict):
        return [*value, *strings_in([*value.values()])]
    if isinstance(value, list):
        return [each for part in value for each in strings_in(part)]
    return [value] if isinstance(value, str) else []


def test_json_stands_for_the_same_values(multispool, spool, put):
    """Only what is not printable is escaped, in pairs above U+FFFF; numbers stay as they were written."""
    odd = "\x7f\x9b\u202e\u2066\u2028\ue000\U000e0041"
    put("one", meta=f'{{\r\n"{odd}" : "{odd}\\u009b é😀",\r"n": 0.10}}')
    shown = multispool.done("show", spool, "one", "--json")
    assert json.loads(shown)["metadata"] == {odd: f"{odd}\x9b é😀", "n": 0.1}
    escapes = r"\u007f\u009b\u202e\u2066\u2028\ue000\udb40\udc41"
    assert f'"metadata":{{"{escapes}":"{escapes}\\u009b é😀","n":0.10}}' in shown
