"""The examples: each is run as a user runs it, in a process of its own."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.postgresql import server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.program

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAST_LINE = re.compile(r"demo: enqueued (\d+), done (\d+), lost (\d+), twice (\d+), recovered (\d+)")


def run(script: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script with the warnings that Python leaves out by default, of descriptors left open for example."""
    command = [sys.executable, "-W", "default", str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def last_line(output: str) -> tuple[int, ...]:
    """Return the numbers of the demonstration's last line."""
    found = LAST_LINE.fullmatch(output.splitlines()[-1])
    assert found is not None, output
    return tuple(map(int, found.groups()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of files to enqueue: an empty one, a large one, odd names, and what is to be left out."""
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "__pycache__").mkdir()
    (folder / "empty").touch()
    (folder / "large").write_bytes(os.urandom(3_000_001))
    (folder / "deep" / "er" / "what's this?\n%41 ünd so").write_text("odd")
    (folder / os.fsdecode(b"not \xff text")).write_text("odder")
    for number in range(12):
        (folder / "deep" / f"{number}").write_text(f"{number}")
    (folder / ".hidden" / "file").touch()
    (folder / "__pycache__" / "file").touch()
    (folder / "link").symlink_to("empty")
    return folder


@pytest.mark.sample
def test_the_demonstration_loses_nothing_and_recovers_what_the_killed_worker_held(folder, tmp_path):
    """Every regular file is enqueued and done once, and the last line says so."""
    finished = run(EXAMPLES / "demo.py", folder, cwd=tmp_path)
    assert finished.stderr == ""
    assert last_line(finished.stdout) == (16, 16, 0, 0, 1)
    assert finished.returncode == 0
    assert "with SIGKILL" in finished.stdout
    assert "entries per second" in finished.stdout


def test_the_demonstration_works_with_a_single_file(tmp_path):
    """The victim holds the only entry, and another does it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("alone")
    finished = run(EXAMPLES / "demo.py", tmp_path / "folder", cwd=tmp_path)
    assert (finished.returncode, last_line(finished.stdout)) == (0, (1, 1, 0, 0, 1))


def test_the_demonstration_enqueues_what_git_keeps(tmp_path):
    """In a checkout, files that git does not know are left out, and hidden ones that it knows are not."""
    for name in (".kept", "kept", "not-kept"):
        (tmp_path / name).write_text(name)
    for command in (["init"], ["add", ".kept", "kept"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)
    assert last_line(run(EXAMPLES / "demo.py", tmp_path, cwd=tmp_path).stdout) == (2, 2, 0, 0, 1)


WRONG_DIGEST = "Work.DONE, job.metadata)"
REPORT_DONE = '    report(event="done", name=job.name)'


@pytest.mark.parametrize(
    ("line", "broken", "complaint"),
    [
        (REPORT_DONE, f"{REPORT_DONE}\n{REPORT_DONE}", "more than once"),
        ("Work.DONE, checked)", WRONG_DIGEST, "not what its entry says"),
        ("(await job.save(Work.DONE, checked)).unwrap()", "(await job.remove()).unwrap()", "not in the queue `done`"),
        ("    spool = (await Spool.load(path", "    sys.exit(3)\n    spool = (await Spool.load(path", "status 3"),
    ],
    ids=["reports twice", "wrong digest", "loses entries", "ends early"],
)
def test_a_demonstration_that_goes_wrong_fails(line, broken, complaint, folder, tmp_path):
    """The exit status is that of what happened: a copy of the script that was broken says so, and fails."""
    for script in EXAMPLES.glob("demo*.py"):
        shutil.copy(script, tmp_path)
    source = (tmp_path / "demo.py").read_text()
    assert line in source
    (tmp_path / "demo.py").write_text(source.replace(line, broken))
    finished = run(tmp_path / "demo.py", folder, "--timeout", 30, cwd=tmp_path)
    assert finished.returncode == 1, finished.stdout
    assert complaint in finished.stdout
    assert (last_line(finished.stdout) == (16, 16, 0, 0, 1)) == (broken == WRONG_DIGEST)


def test_the_demonstration_is_bounded_in_time(folder, tmp_path):
    """When its time is over it says so, ends its processes, and fails."""
    finished = run(EXAMPLES / "demo.py", folder, "--timeout", 0.01, cwd=tmp_path)
    assert finished.returncode == 1
    assert "not done within 0.01 seconds" in finished.stdout
    last_line(finished.stdout)
    assert not any(str(folder) in command for command in running_commands())


def running_commands() -> Iterator[str]:
    """Yield the command lines of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            yield path.read_bytes().decode(errors="replace")


def test_a_file_is_streamed_through_a_spool(tmp_path):
    """Each file comes out compressed, and nothing is left in the spool."""
    for name in ("one", "two words"):
        (tmp_path / name).write_text(name * 100_000)
    finished = run(EXAMPLES / "streaming_codec.py", "spool", "one", "two words", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert sorted(finished.stdout.splitlines()) == ["one.gz", "two words.gz"]
    assert gzip.decompress((tmp_path / "two words.gz").read_bytes()).decode() == "two words" * 100_000
    assert not list((tmp_path / "spool" / ".data").iterdir())


def test_a_handler_that_runs_twice_takes_effect_once(tmp_path):
    """The payment is booked once."""
    finished = run(EXAMPLES / "idempotent_handler.py", "spool", "ledger.sqlite", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == [
        "enqueued",
        "invoice-4711 is enqueued already",
        "booked",
        "failed: killed after the effect",
        "was booked before",
        "balance: 1250",
    ]


def test_a_cron_script_that_is_started_twice_enqueues_once(tmp_path):
    """It ends by itself, says nothing else, and each line is in the spool once."""
    (tmp_path / "file").write_text("water the plants\npay the rent\n")
    told = [run(EXAMPLES / "cron_script.py", "spool", "file", cwd=tmp_path) for _ in range(2)]
    assert [each.stderr for each in told] == ["", ""]
    assert (told[0].stdout, told[0].returncode) == ("2 new reminders\n", 0)
    assert told[1].stdout == "0 new reminders\n", "unless it is midnight"
    texts = {path.read_text() for path in (tmp_path / "spool" / "due").iterdir() if path.is_file()}
    assert texts == {"water the plants", "pay the rent"}


@pytest.fixture
def location() -> Iterator[str]:
    """Return where a spool on a server can be made."""
    name = f"of_an_example_{os.getpid()}"
    server().drop(name)
    yield server().url(name)
    server().drop(name)


@pytest.mark.postgresql
def test_an_order_and_the_mail_about_it_are_one_transaction(location, tmp_path):
    """The order that comes to nothing leaves no mail, and its transaction no order."""
    told = run(EXAMPLES / "postgresql_transaction.py", server().base, location, cwd=tmp_path)
    assert told.stderr == ""
    assert told.stdout == "no order of bert@example.org\nmail to anne@example.org\nmail to cleo\n"


@pytest.mark.postgresql
def test_a_session_of_sqlalchemy_is_one_transaction_too(location, tmp_path):
    """What it rolls back is neither in its tables nor in the spool."""
    database = server().base.replace("postgresql:", "postgresql+psycopg:", 1)
    told = run(EXAMPLES / "postgresql_sqlalchemy.py", database, location, cwd=tmp_path)
    assert told.stderr == ""
    assert told.stdout == "orders of anne@example.org cleo@example.org\nmail about order-1 order-2\n"


def test_a_worker_on_asyncio_ends_after_the_entries_in_hand(tmp_path):
    """After SIGTERM it finishes, ends with status 0, and leaves no entry checked out."""
    command = [sys.executable, "-W", "default", str(EXAMPLES / "asyncio_worker.py"), "spool"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stderr is not None
            assert worker.stdout.readline() == "ready\n"
            enqueue_by_hand(tmp_path / "spool", "greetings", "greeting", b'{"to": "Anne"}', b"Hello")
            assert worker.stdout.readline() == "Hello, Anne!\n"
            worker.send_signal(signal.SIGTERM)
            assert worker.stdout.read() == "stopped\n"
            assert worker.stderr.read() == ""
            assert worker.wait(60) == 0
        finally:
            worker.kill()
    assert not list((tmp_path / "spool").rglob("greeting"))


def enqueue_by_hand(spool: Path, queue: str, name: str, metadata: bytes, data: bytes) -> None:
    """Put an entry into a queue with as little as will do where nobody else enqueues and no power is lost."""
    (spool / ".registry" / name).touch()
    (spool / ".data" / name).write_bytes(data)
    (spool / ".tmp" / name).write_bytes(metadata)
    (spool / ".tmp" / name).rename(spool / queue / name)
