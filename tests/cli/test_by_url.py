"""The command on a spool that is no directory, given by its URL: everything works that is not about directories.

What is told of such a spool has no password in it, and no path.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from typing import TYPE_CHECKING, Any

import pytest

from helpers import postgresql
from helpers.stores import QUEUES, claim, enqueue
from trio_multispool.cli import checking, completing, spools
from trio_multispool.session import stores
from trio_multispool.storage.postgres.schema import VERSION

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


@pytest.fixture
def done(multispool) -> Callable[..., str]:
    """Return a function that runs the command in this process, and expects success without a word of complaint."""

    def run(*words: str | os.PathLike[str], code: int = 0) -> str:
        found = multispool.here(*words)
        assert (found.returncode, found.stderr) == (code, "")
        return found.stdout

    return run


def refused(found: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the one line with which a command was refused."""
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (code, "", 1)
    return found.stderr


def test_a_spool_is_made_filled_and_looked_at(done, url, tmp_path):
    """Its location is told as the store tells it; there is no path of the data."""
    (tmp_path / "letter").write_text("Hello")
    assert "created, with send, failed" in done("create", url, "send", "failed")
    assert "was there; added retry" in done("create", url, "retry", "send")
    assert done("put", url, "send", "letter", "--meta", "to=anne", "--name", "a") == "a\n"
    done("put", url, "send", "letter", "--name", "later", "--delay", "1h")
    lines = [line.split() for line in done("ls", url).splitlines()]
    assert [line[:2] for line in lines[1:]] == [["failed", "0"], ["retry", "0"], ["send", "1"]]
    assert [line.split()[:3] for line in done("ls", url, "send", "--long").splitlines()[1:]] == [
        ["a", "send", "available"],
        ["later", "send", "waiting"],
    ]
    assert "path " not in done("show", url, "a")
    found = json.loads(done("show", url, "a", "--json"))
    assert (found["data_path"], found["data_size"], found["metadata"]) == (None, 5, {"to": "anne"})
    assert done("cat", url, "a") == "Hello"
    assert done("stats", url, "send").splitlines()[1].split()[:3] == ["send", "2", "1"]
    assert json.loads(done("ls", url, "--json"))["spool"].partition(":")[0] == url.partition(":")[0]


def test_entries_are_moved_worked_off_and_removed(multispool, done, url, opened, tmp_path):
    """A command gets the location, and a copy of the data as a file, which is gone when it has ended."""
    for name in ("a", "b", "c", "d", "e"):
        enqueue(opened, "send", name, b"{}", b"Hello")
    done("mv", url, "a", "retry")
    assert done("mv", url, "failed", "--from", "retry", "--all") == "1 entry moved to failed\n"
    assert done("retry", url, "failed", "send", "a") == ""
    done("rm", url, "b")
    assert done("rm", url, "--from", "send", "--name", "c", "--dry-run").splitlines()[0] == (
        "c: would be removed from send"
    )
    assert done("cancel", url, "c") == "c: removed from send\n"
    script = f'echo "$MULTISPOOL_SPOOL $MULTISPOOL_DATA" > "{tmp_path}/told"; cmp -s - "$MULTISPOOL_DATA"'
    worked = multispool.here("work", url, "send", "--once", "--quiet", "--done", "retry", "--", "sh", "-c", script)
    assert (worked.returncode, worked.stderr) == (0, "multispool: done 3, failed 0\n")
    location, path = (tmp_path / "told").read_text().split()
    assert location == opened.location
    assert not os.path.exists(path)
    tried = multispool.here(
        *("work", url, "retry", "--once", "--attempts", "1", "--failed", "failed", "--", "sh", "-c"),
        'test "$MULTISPOOL_NAME" = a',
    )
    assert tried.returncode == 6
    assert sorted(opened.names("failed")) == ["d", "e"]
    expired = multispool.here("expire", url, "failed", "--max-count", "1", "--", "sh", "-c", "grep -q Hello")
    assert (expired.returncode, expired.stdout, expired.stderr) == (0, "1 entry removed\n", "")
    assert opened.names("failed") == ["e"]


def test_what_was_set_aside_is_looked_at_put_back_and_dropped(done, url, opened):
    """As in a directory."""
    for name in ("a", "b"):
        enqueue(opened, "send", name)
        opened.quarantine(claim(opened, "send", name), "not to be read")
    assert [line.split()[0] for line in done("quarantine", "ls", url).splitlines()] == ["NAME", "a", "b"]
    assert "not to be read" in done("quarantine", "show", url, "a")
    assert done("quarantine", "retry", url, "a") == "a: is back in send\n"
    assert done("quarantine", "drop", url, "--all") == "b: was dropped\n"
    assert [item.name for item in opened.inventory()] == ["a"]


def test_what_the_dead_had_is_found_and_put_back(multispool, done, url, opened):
    """Looking changes nothing; a repair, or a recovery, puts it back."""
    for name in ("a", "b"):
        enqueue(opened, "send", name)
    with contextlib.closing(stores.open_store(url, QUEUES).storage) as store:
        for name in ("a", "b"):
            claim(store, "send", name).abandon()
    found = multispool.here("fsck", url)
    assert (found.returncode, found.stderr) == (7, "")
    told = "entry 'a' is checked out of 'send', and its owner is dead"
    assert found.stdout.startswith(told)
    assert found.stdout.endswith("2 problems\n")
    watched = multispool.here("monitor", url, "--once")
    assert (watched.returncode, watched.stdout.count(told)) == (7, 1)
    planned = multispool.here("fsck", url, "--repair", "--dry-run")
    assert planned.stdout.endswith("2 problems, 2 can be repaired\n")
    assert "a: would go back to send\n" in done("recover", url, "--dry-run")
    assert opened.names("send") == []
    assert done("fsck", url, "--repair").endswith("2 problems, 2 were repaired\n")
    assert opened.names("send") == ["a", "b"]
    assert done("recover", url) == "nothing to recover\n"
    assert done("fsck", url) == "nothing is wrong\n"
    assert json.loads(done("fsck", url, "--json"))["adopted"]


def test_who_only_checks_opens_nothing_that_can_be_changed(multispool, url, opened, monkeypatch):
    """So a role that may only read can check, and a check has no owner whose end others would have to wait for."""

    def refuse(*_arguments: object, **_how: object) -> Any:
        raise AssertionError("it was opened to be changed")

    enqueue(opened, "send", "a")
    for name in ("open_store", "open_store_unsafe"):
        for module in (checking, spools):
            monkeypatch.setattr(module, name, refuse, raising=False)
    for words in (["fsck"], ["fsck", "--repair", "--dry-run"], ["monitor", "--once"], ["ls"], ["show", "a"], ["stats"]):
        command, *rest = words
        assert multispool.here(command, url, *rest).returncode == 0


def test_an_entry_that_waits_too_long_is_told(multispool, url, opened):
    """The limits hold there too."""
    enqueue(opened, "send", "a")
    found = multispool.here("fsck", url, "--max-send-age", "0")
    assert found.returncode == 7
    assert found.stdout.startswith("entry 'a' has waited in 'send' for too long")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["adopt", "URL"], 5),
        (["create", "URL", "send", "--mode", "770"], 2),
        (["create", "URL", "send", "--not-adopted"], 2),
        (["create", "URL", "send", "--trust-file-system"], 2),
        (["put", "URL", "send", "/dev/null", "--trust-file-system"], 2),
        (["recover", "URL", "--trust-file-system"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_about_directories_is_refused(multispool, words, code):
    """Before any server is asked, and without saying a password."""
    url = "postgresql://anne:s3cret@nowhere.invalid/db"
    told = refused(multispool.here(*(url if word == "URL" else word for word in words)), code)
    assert "about directories" in told
    assert "s3cret" not in told


@pytest.mark.parametrize(
    "words", [["show"], ["show", "a", "b"], ["ls", "queue", "--nonsense"], ["ls", "nosuch/queue/.checkout"]]
)
def test_wrong_usage_tells_no_password(multispool, words):
    """However the URL stands among the words."""
    url = "postgresql://anne:s3cret@127.0.0.1:1/db?password=s3cret"
    command, *rest = words
    for line in ([command, url, *rest], [command, *rest, url], [command, *rest, f"--json={url}"]):
        found = multispool.here(*line)
        assert found.returncode != 0
        assert "s3cret" not in found.stderr + found.stdout


@pytest.mark.parametrize("url", ["redis://anne:s3cret@host/0", "postgres:/host/db", "memory:"])
def test_another_url_is_refused(multispool, url):
    """No store answers to it; exit code 5."""
    told = refused(multispool.here("ls", url), 5)
    assert "s3cret" not in told


def test_a_server_that_cannot_be_reached_is_trouble(multispool):
    """One line, exit code 1."""
    postgresql.server()  # for the client library
    told = refused(multispool.here("ls", "postgresql://anne:s3cret@127.0.0.1:1/db"), 1)
    assert "cannot be reached" in told
    assert "s3cret" not in told


def test_without_the_extra_it_says_how_to_get_it(multispool, monkeypatch):
    """Exit code 2, as without the extra of the command."""
    monkeypatch.setitem(sys.modules, "trio_multispool.storage.postgres.store", None)
    for words in (["ls", "URL"], ["put", "URL", "send", "/dev/null"], ["create", "URL", "send"], ["recover", "URL"]):
        told = refused(multispool.here(*("postgresql://host/db" if word == "URL" else word for word in words)), 2)
        assert "trio-multispool[postgresql]" in told


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_queues_and_entries_are_completed(url, opened, quote):
    """A URL stands in quotes in bash, which hands them on."""
    enqueue(opened, "send", "order-1")
    enqueue(opened, "send", "letter")

    class Word:
        raw = f"{quote}{url}{quote}"

    class Context(dict[str, Word]):
        incomplete = "ord"

    context: Any = Context(SPOOL=Word())
    assert completing.queue_names(context) == sorted(QUEUES)
    assert completing.entry_names(context) == ["order-1"]


def test_completing_says_nothing_of_trouble(monkeypatch):
    """The extra may be missing, and the server down."""

    class Word:
        raw = "postgresql://host/db"

    monkeypatch.setitem(sys.modules, "trio_multispool.storage.postgres.store", None)
    context: Any = {"SPOOL": Word()}
    assert completing.queue_names(context) == []


def test_a_spool_on_a_server_is_watched_on_the_whole_screen(full_screen, tmp_path):
    """Its queues and entries, and what is in hand; what was set aside is put back. No password is shown."""
    server, name = postgresql.server(), f"cli_{secrets.token_hex(8)}"
    url = server.url(name)
    try:
        with contextlib.closing(stores.open_store(url, QUEUES, create=True).storage) as store:
            for entry in ("held", "aside", "other"):
                enqueue(store, "send", entry)
            held = claim(store, "send", "held")
            store.quarantine(claim(store, "send", "aside"), "not to be read")
            screen = full_screen("top", url, "--every", "0.1", "--check-every", "0.1", columns=200)
            shown = screen.until(lambda text: "aside" in text and "held" in text)
            assert store.location in shown
            assert f"[{os.getpid()}]" in shown
            screen.press("\t\t")
            screen.press("r")
            screen.press("y")
            screen.until(lambda _text: store.names("send") == ["aside", "other"])
            screen.press("q")
            assert screen.end() == 0
            held.abandon()
    finally:
        server.drop(name)


def test_the_tables_can_be_made_by_an_administrator(multispool):
    """What is printed makes the spool: then a role that may make nothing uses it. No server is asked for that."""
    server, name = postgresql.server(), f"cli_{secrets.token_hex(8)}"
    url = server.url(name)
    try:
        printed = multispool.here("sql", f"postgresql://anne:s3cret@nowhere.invalid/db?spool={name}")
        assert (printed.returncode, printed.stderr) == (0, "")
        assert name in printed.stdout
        assert "s3cret" not in printed.stdout
        server.execute(printed.stdout)
        assert multispool.here("ls", url).returncode == 0
        since = multispool.here("sql", url, "--from", str(VERSION))
        assert (since.returncode, since.stdout.count("\n")) == (0, 1)
    finally:
        server.drop(name)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["postgresql://host/db", "--from", "99"], 2, "there are versions"),
        (["postgresql://host/db", "--from", "-1"], 2, "there are versions"),
        (["postgresql://host/db?spool=A"], 5, "cannot be the name of its schema"),
        (["var/mail"], 5, "only a spool on a PostgreSQL server has tables"),
        (["redis://anne:s3cret@host"], 5, "only a spool on a PostgreSQL server has tables"),
    ],
)
def test_there_are_no_tables_of_anything_else(multispool, words, code, why):
    """Nor of a version that does not exist."""
    told = refused(multispool.here("sql", *words), code)
    assert why in told
    assert "s3cret" not in told
