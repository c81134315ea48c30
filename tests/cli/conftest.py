"""What the tests of the command share: running it as a person or a script would, as a process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import io
import logging
import os
import pty
import secrets
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from typing import IO, TYPE_CHECKING, Any

import pytest

from helpers import postgresql, preforked
from helpers.by_url import keep_in_memory
from helpers.calls import FailingCalls
from helpers.stores import QUEUES, claim, enqueue, make_store
from helpers.terminals import Terminal
from trio_multispool.cli import main
from trio_multispool.session import stores
from trio_multispool.storage.directory import opening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trio_multispool.storage.protocol import Storage

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COMMAND = [sys.executable, "-m", "trio_multispool"]
# What would change the output of rich, or of this program.
CHANGES_OUTPUT = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


def clean_environment(**more: str) -> dict[str, str]:
    """Return an environment in which output does not depend on who runs the tests."""
    kept = {key: value for key, value in os.environ.items() if key not in CHANGES_OUTPUT}
    return {key: value for key, value in kept.items() if not key.startswith("MULTISPOOL_")} | more


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Put back the handlers of signals, those of the log, and the umask."""
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    logs, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers.clear()  # as in a process of its own, which has none yet
    umask = os.umask(0o077)
    os.umask(umask)
    try:
        yield
    finally:
        os.umask(umask)
        logging.root.handlers[:] = logs
        logging.root.setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Multispool:
    """Runs `multispool` in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[subprocess.Popen[Any]] = []

    def __call__(self, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end, in a process of its own that need not start and import; see `helpers.preforked`."""
        options = {"env": clean_environment()} | options
        return preforked.run([*map(os.fspath, arguments)], cwd=self.directory, **options)

    def here(self, *arguments: str | os.PathLike[str], given: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run it to its end in this process: for help and refusals, where the process is not the point.

        It is `given` its standard input, and what the command changes of the process is put back. What it writes that
        is no text has surrogates in the place of its bytes.
        """
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        command = [*map(os.fspath, arguments)]
        with _as_it_was(), tempfile.TemporaryFile() as stdin, pytest.MonkeyPatch.context() as patch:
            stdin.write(given)
            stdin.seek(0)
            for name, stream in (("stdin", stdin), ("stdout", out), ("stderr", err)):
                patch.setattr(sys, name, stream)
            patch.chdir(self.directory)
            for name in os.environ.keys() - clean_environment().keys():
                patch.delenv(name)
            patch.setenv("COLUMNS", "80")  # as where there is no terminal, whatever the tests run on
            try:
                code = main(command)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        said = []
        for stream in (out, err):
            stream.flush()
            said.append(stream.buffer.getvalue().decode(errors="surrogateescape"))
        return subprocess.CompletedProcess(command, code, *said)

    def anew(self, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end, started as a person would start it."""
        options = {"capture_output": True, "text": True, "env": clean_environment()} | options
        if "input" not in options and "stdin" not in options:
            options["stdin"] = subprocess.DEVNULL
        return subprocess.run([*COMMAND, *map(os.fspath, arguments)], cwd=self.directory, check=False, **options)

    def done(self, *arguments: str | os.PathLike[str], **options: Any) -> str:
        """Run it, expect it to succeed without a word on standard error, and return its output."""
        found = self(*arguments, **options)
        assert (found.returncode, found.stderr) == (0, "")
        return found.stdout

    def start(self, *arguments: str | os.PathLike[str], anew: bool = False, **options: Any) -> subprocess.Popen[str]:
        """Start it likewise and go on; or `anew`, as a person would start it."""
        defaults = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": clean_environment(),
            "text": True,
        }
        begin, words = (subprocess.Popen, COMMAND) if anew else (preforked.Process, [])
        process = begin([*words, *map(os.fspath, arguments)], cwd=self.directory, **(defaults | options))
        self.started.append(process)
        return process

    def on_terminal(
        self,
        *arguments: str,
        columns: int = 80,
        at: Callable[[bytes, int], object] | None = None,
        code: str | None = None,
        stdout: IO[Any] | None = None,
    ) -> tuple[int, str]:
        """Run it with a terminal of its own as its standard streams; return the exit code and all that was shown.

        `at` is called with what has been shown so far and the terminal's descriptor, whenever more is shown.
        """
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = self.start(
            *arguments,
            code=code,
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            env=clean_environment(TERM="xterm-256color"),
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
                if at is not None:
                    at(shown, ours)
        except OSError:  # EIO: the last user of the terminal has closed it
            pass
        finally:
            os.close(ours)
        return process.wait(), shown.decode()


@pytest.fixture
def multispool(tmp_path: Path) -> Iterator[Multispool]:
    """Run the command in `tmp_path`; what was started is ended with the test.

    It gets the signals that a terminal gives it, also where the tests run with some of them ignored (`nohup`, a
    background job of a script): it would rightly go on ignoring those.
    """
    ignored = [number for number in STOPPING if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    command = Multispool(tmp_path)
    yield command
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    for process in command.started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):  # not read to their ends: an orphan may have them open
            if stream is not None:
                stream.close()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Make a spool with three queues: send, retry and failed."""
    make_store(tmp_path / "spool").close()
    return tmp_path / "spool"


@pytest.fixture(params=["memory", "postgresql"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name a spool that is not there, on each kind of store that is no directory; the one in memory for `here`."""
    if request.param == "memory":
        yield keep_in_memory(monkeypatch)
        return
    server, name = postgresql.server(), f"cli_{secrets.token_hex(8)}"
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def opened(url: str) -> Iterator[Storage]:
    """Make the spool that has a URL, and open its store."""
    with contextlib.closing(stores.open_store(url, QUEUES, create=True).storage) as store:
        yield postgresql.leaving_the_dead(store)


class Gate:
    """Commands that `work` runs: each says that it has begun, and then waits until it is let go. No sleeping."""

    def __init__(self, directory: Path) -> None:
        self.begun, self.go = directory / "begun", directory / "go"
        for fifo in (self.begun, self.go):
            os.mkfifo(fifo)
        # Open at both ends, so that neither side waits in `open`.
        self._begun = os.open(self.begun, os.O_RDWR)
        self._go = os.open(self.go, os.O_RDWR)

    def command(self, before: str = ":", after: str = "exit 0") -> list[str]:
        """Return a command that tells its process number when it has begun, and reads a line before it ends."""
        return ["sh", "-c", f'{before}; echo $$ > "{self.begun}"; read line < "{self.go}"; {after}']

    def wait_begun(self) -> int:
        """Wait until a command has begun, and return its process number."""
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self._begun, 1)
        return int(line)

    def let_go(self) -> None:
        """Let one command end. A single byte: commands that read at once must not share a line."""
        os.write(self._go, b"\n")

    def close(self) -> None:
        """Close the FIFOs."""
        os.close(self._begun)
        os.close(self._go)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Hold up the commands of `work`."""
    made = Gate(tmp_path)
    yield made
    made.close()


@pytest.fixture
def put(spool: Path) -> Iterator[Callable[..., str]]:
    """Return a function that enqueues an entry."""
    store = make_store(spool)

    def put_one(name: str, data: str = "Hello", queue: str = "send", meta: str = '{"to":"anne"}') -> str:
        enqueue(store, queue, name, meta.encode(), data.encode())
        return name

    yield put_one
    store.close()


IMPATIENT = """
import sys
from trio_multispool.cli import main, progress
progress._PATIENCE, progress._AT_A_TIME = -1, 1
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def impatient() -> str:
    """Return the code of the command for a person who wants to see a bar at once, however little there is to do."""
    return IMPATIENT


@pytest.fixture
def set_aside(spool: Path, put: Callable[..., str]) -> Iterator[Callable[..., str]]:
    """Return a function that enqueues an entry and sets it aside, as a reader does that cannot read it."""
    store = make_store(spool)

    def set_one_aside(name: str, reason: str = "not to be read", queue: str = "send", **entry: str) -> str:
        put(name, queue=queue, **entry)
        store.quarantine(claim(store, queue, name), reason)
        return name

    yield set_one_aside
    store.close()


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, tuple[int, ...]]]:
    """Return a function that describes everything in a directory, so that any change shows."""

    def describe(directory: Path) -> dict[str, tuple[int, ...]]:
        found = {}
        for path in [directory, *sorted(directory.rglob("*"))]:
            stat = path.lstat()
            found[str(path)] = (stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        return found

    return describe


@pytest.fixture
def locks_are_shown(tmp_path: Path) -> bool:
    """Tell whether the kernel shows who holds locks on this file system (btrfs and overlayfs do not)."""
    from trio_multispool.storage.directory.inventory import lock_owners

    with open(tmp_path / "probe", "w") as probe:
        fcntl.flock(probe, fcntl.LOCK_EX)
        found = os.fstat(probe.fileno())
        owner = lock_owners().get((os.major(found.st_dev), os.minor(found.st_dev), found.st_ino))
        return owner is not None and owner.pid == os.getpid()


@pytest.fixture
def dead(multispool: Multispool, spool: Path, put: Callable[..., str], gate: Gate) -> str:
    """Leave an entry behind, in the queue "retry", that a worker had when it was killed."""
    put("dead", queue="retry")
    worker = multispool.start("work", spool, "retry", "--", *gate.command())
    command = gate.wait_begun()
    worker.kill()
    worker.wait()
    os.kill(command, signal.SIGKILL)
    return "dead"


def command_name(pid: int) -> str:
    """Return how the kernel calls the program of a process."""
    with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
        return file.read().strip()


@pytest.fixture
def owner_of(locks_are_shown: bool) -> Callable[[subprocess.Popen[str]], dict[str, object] | None]:
    """Return a function that tells how a process is shown as an owner in JSON."""

    def told(process: subprocess.Popen[str]) -> dict[str, object]:
        return {"pid": process.pid, "command": command_name(process.pid), "host": os.uname().nodename}

    return told if locks_are_shown else lambda _process: None


@pytest.fixture
def full_screen(multispool: Multispool) -> Iterator[Callable[..., Terminal]]:
    """Return a function that starts the command on a terminal of its own, to type to it and to see what it shows."""
    opened: list[Terminal] = []

    def start(
        *arguments: str | os.PathLike[str], columns: int = 80, lines: int = 24, anew: bool = False, **more: str
    ) -> Terminal:
        environment = clean_environment(**{"TERM": "xterm-256color"} | more)
        start = functools.partial(multispool.start, *arguments, anew=anew, env=environment)
        opened.append(Terminal(start, columns, lines))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> FailingCalls:
    """Return system calls that fail on demand, and that commands make in this process."""
    calls = FailingCalls()
    monkeypatch.setattr(opening, "SystemCalls", lambda: calls)
    return calls
