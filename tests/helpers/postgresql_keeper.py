"""Keeps a PostgreSQL server while some process lives, and removes it with all its files when that one ends.

A program by itself, of the standard library alone. It gets its orders as JSON in its argument, leaves its parent,
prints one line of JSON when the server takes connections (or why it does not), and then listens for words at a socket:
`tell`, `start`, `stop fast`, `stop immediate` and `end`. The server dies with the keeper, whatever ends that one.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
PORTS_TRIED = 10
PATIENCE = 120.0
"""Seconds in which a server must have started, on a machine that has much else to do."""

SETTINGS = {
    "autovacuum": "on",
    "dynamic_shared_memory_type": "mmap",  # in its own folder, and not in /dev/shm, where a leftover would stay
    "listen_addresses": "127.0.0.1",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %a ",
    "max_connections": "300",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "shared_buffers": "64MB",
    "unix_socket_directories": "",
}


class FailedError(Exception):
    """The server could not be started."""


class Orders(NamedTuple):
    """What is to be kept, and for whom."""

    binaries: str
    folder: str
    """Empty; removed at the end."""
    superuser: str
    watched: int
    """The process with which the server is to end."""
    address: str
    """Of the socket, in the abstract name space."""
    user: int | None
    group: int | None
    settings: dict[str, str]
    segment: int
    """Of its log of changes, in megabytes."""
    copy_of: str = ""
    """What it begins as a copy of, and follows: where that server is, for libpq; empty: it begins empty."""


class Keeper:
    """A server that runs, or is stopped."""

    def __init__(self, orders: Orders) -> None:
        """Begin with nothing."""
        self.orders = orders
        self.folder = Path(orders.folder)
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program of the server as its user, with its output going to the log."""
        prctl = ctypes.CDLL(None).prctl
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(
                [str(Path(self.orders.binaries, command[0])), *command[1:]],
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.orders.user,
                group=self.orders.group,
                extra_groups=None if self.orders.user is None else [],
                # Last of all, as it is forgotten when the user changes.
                preexec_fn=lambda: prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGQUIT, 0, 0, 0),  # noqa: PLW1509  # one thread
            )

    def make(self) -> None:
        """Make the data directory: where it is possible, with an order of text that is not that of bytes."""
        if self.orders.user is not None:
            os.chown(self.folder, self.orders.user, self.orders.group or -1)
        if self.orders.copy_of:
            how = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
            if self._run("pg_basebackup", "-d", self.orders.copy_of, "-D", "data", *how).wait() != 0:
                raise FailedError(f"pg_basebackup failed:\n{self.log()}")
            return
        plain = ["--auth=trust", f"--username={self.orders.superuser}", "--encoding=UTF8", "--locale=C", "--no-sync"]
        small = [f"--wal-segsize={self.orders.segment}"]
        for locale in (["--locale-provider=icu", "--icu-locale=en"], []):
            shutil.rmtree(self.folder / "data", ignore_errors=True)
            if self._run("initdb", "-D", "data", *plain, *small, *locale).wait() == 0:
                return
        raise FailedError(f"initdb failed:\n{self.log()}")

    def log(self) -> str:
        """Return the end of the log."""
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def start(self) -> None:
        """Start the server at the port that it had, or at a free one, and wait until it takes connections."""
        for _ in range(PORTS_TRIED):
            port = self.port or _free_port()
            settings = {**SETTINGS, **self.orders.settings, "port": str(port)}
            told = (self.folder / "log").stat().st_size
            options = [f"--{name}={value}" for name, value in settings.items()]
            self.process = self._run("postgres", "-D", "data", *options)
            if self._is_ready(self.process):
                self.port = port
                return
            since = (self.folder / "log").read_bytes()[told:]
            if self.port or b"could not bind" not in since:
                break
        raise FailedError(f"the server does not start:\n{self.log()}")

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the server says that it is ready, which nothing but its file of state tells."""
        end = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < end:
            try:
                lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
            except OSError:
                lines = []
            if lines[:1] == [str(process.pid)] and lines[-1].strip() in {"ready", "standby"}:
                return True
            time.sleep(0.005)
        self.stop(signal.SIGQUIT)
        return False

    def stop(self, how: signal.Signals) -> None:
        """Stop the server: SIGINT ends its clients first, and SIGQUIT leaves it as a crash would."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def remove(self) -> None:
        """Stop the server, and remove all that belongs to it."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def obey(self, word: str) -> None:
        """Do what somebody asks."""
        if word == "start":
            self.start()
        elif word == "end":
            self.remove()
        elif word != "tell":
            self.stop({"stop fast": signal.SIGINT, "stop immediate": signal.SIGQUIT}[word])

    def state(self) -> dict[str, Any]:
        """Tell how it is."""
        pid = self.process.pid if self.process else None
        return {"port": self.port, "pid": pid, "keeper": os.getpid(), "folder": str(self.folder)}


def _free_port() -> int:
    """Return a port that is free now: another may take it before the server does."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
    return port


def _leave() -> None:
    """Become nobody's child, so that whoever started this need not wait for it."""
    if os.fork():
        os._exit(0)
    os.setsid()


def main(orders: Orders) -> None:
    """Keep a server."""
    watched = os.pidfd_open(orders.watched)
    _leave()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    keeper = Keeper(orders)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"\0{orders.address}")
            listening.listen(16)
            try:
                keeper.make()
                keeper.start()
            except (FailedError, OSError) as error:
                print(json.dumps({"failed": str(error)}))
                return
            print(json.dumps(keeper.state()))
            sys.stdout.flush()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            serve(keeper, listening, watched)
    finally:
        keeper.remove()


def serve(keeper: Keeper, listening: socket.socket, watched: int) -> None:
    """Obey, until the process that is watched has ended, or the word is `end`."""
    while watched not in select.select([listening, watched], [], [])[0]:
        connection, _ = listening.accept()
        with connection:
            word = connection.makefile().readline().strip()
            try:
                keeper.obey(word)
                answer = keeper.state()
            except (FailedError, OSError) as error:
                answer = {"failed": str(error)}
            try:
                connection.sendall(json.dumps(answer).encode())
            except BrokenPipeError:
                continue
        if word == "end":
            return


if __name__ == "__main__":
    main(Orders(**json.loads(sys.argv[1])))
