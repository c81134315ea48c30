"""Processes that need not start and import: the command `multispool`, or other code, perhaps as another user.

A server, one for each process that runs tests, has imported everything, has one thread, and forks for each command. So
a command has its own signals, descriptors, working directory and environment, and ends as a process does. Start a
process anew where starting is the point.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import inspect
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from helpers.users import User

STREAMS = 3
_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_ONE_AT_A_TIME = threading.Lock()


def run(
    arguments: Sequence[str],
    *,
    input: str | bytes | None = None,  # noqa: A002  # as there
    capture_output: bool = True,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end, as `subprocess.run` does; the options are those of `Process`."""
    options = {"text": True, "stdin": subprocess.DEVNULL if input is None else subprocess.PIPE} | options
    if capture_output:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    with Process(arguments, **options) as process:
        stdout, stderr = process.communicate(input)
    return subprocess.CompletedProcess(list(arguments), process.returncode, stdout, stderr)


class Process(subprocess.Popen[Any]):
    """A command that was forked instead of started; else it is as any `Popen`, and a child of this process.

    What begins a session on a terminal has that as its own, without a `preexec_fn`. It has no descriptors but its
    streams.
    """

    def __init__(
        self, arguments: Sequence[str], *, code: str | None = None, as_user: User | None = None, **options: Any
    ) -> None:
        """Start `multispool`, or run `code` as `python -c` does, perhaps as another user."""
        self._asked = {"code": code, "user": as_user}
        super().__init__(arguments, **options)

    def _execute_child(self, *arguments: Any) -> None:
        asked = inspect.signature(subprocess.Popen._execute_child).bind(self, *arguments).arguments
        names = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        streams = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self._asked |= {name: asked[name] for name in ("args", "umask", "start_new_session")}
        self._asked |= {"cwd": os.fspath(asked["cwd"] or os.getcwd()), "env": dict(asked["env"] or os.environ)}
        request = json.dumps(self._asked).encode()
        theirs = [number if fd == -1 else fd for number, fd in enumerate(streams)]
        try:
            with socket.socket(socket.AF_UNIX) as connection, _adopting():
                connection.connect(_server())
                socket.send_fds(connection, [len(request).to_bytes(4, "big")], theirs)
                connection.sendall(request)
                answer = connection.makefile("rb").readline()
        finally:
            self._close_pipe_fds(*(asked[name] for name in names))
        assert answer, "the server of commands has ended"
        self.pid, self._child_created = int(answer), True


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Be the parent of what loses its parent, if that is of our descendants."""
    prctl = ctypes.CDLL(None).prctl
    with _ONE_AT_A_TIME:
        assert prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        try:
            yield
        finally:
            assert prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


@functools.cache
def _server() -> str:
    """Start the server, and return the address that it listens at; it ends with this process."""
    address = f"\0multispool-tests-{os.getpid()}-{os.urandom(8).hex()}"
    command = [sys.executable, os.path.abspath(__file__), address[1:]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"

    def end() -> None:
        server.stdin.close()
        server.wait()
        server.stdout.close()

    atexit.register(end)
    return address


def serve(address: str) -> str | None:
    """Fork for each command, until standard input is closed. Returns in each command's process, with its code."""
    _warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes between
    lifeline = os.dup(0)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{address}")
        listening.listen(64)
        print("ready", flush=True)
        while True:
            readable, _, _ = select.select([listening, lifeline], [], [])
            if lifeline in readable:
                os._exit(0)
            connection, _ = listening.accept()
            if not os.fork():
                listening.close()
                os.close(lifeline)
                return _become(connection)
            connection.close()


def _warm_up() -> None:
    """Run two commands into nothing, so that what they import late is there already, and what other code imports."""
    import trio  # noqa: F401  # for the commands that run it

    import helpers.stores
    import helpers.users  # noqa: F401
    from trio_multispool.cli.app import run

    kept = os.dup(1), os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nothing, number)
    for arguments in (["ls", "--help"], ["ls", "/nowhere"]):
        _ = run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    for number, fd in enumerate(kept, 1):
        os.dup2(fd, number)
        os.close(fd)
    os.close(nothing)
    logging.root.handlers.clear()  # each command makes its own
    _ = gc.collect()
    gc.freeze()  # what is here already need not be looked at in each command


def _become(connection: socket.socket) -> str | None:
    """Be what is asked for, as a child of who asks: that one adopts it, when the process between them ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    between = os.getpid()
    if os.fork():
        os._exit(0)
    length, fds, _, _ = socket.recv_fds(connection, 4, STREAMS)
    request = json.loads(connection.makefile("rb").read(int.from_bytes(length, "big")))
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    for fd in fds:
        if fd >= STREAMS:
            os.close(fd)
    if request["start_new_session"]:
        os.setsid()
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # New objects: those of the server know whether *its* streams can be sought and are terminals.
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if request["umask"] >= 0:
        os.umask(request["umask"])
    sys.argv[1:] = request["args"]
    if request["user"] is not None:
        from helpers.users import User

        User(*request["user"]).become()
    while os.getppid() == between:
        os.sched_yield()
    connection.sendall(f"{os.getpid()}\n".encode())
    connection.close()
    code: str | None = request["code"]
    return code


if __name__ == "__main__":
    from trio_multispool.cli import main

    code = serve(sys.argv[1])
    if code is not None:
        sys.argv[0], sys.modules["__main__"] = "-c", types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec", dont_inherit=True), sys.modules["__main__"].__dict__)
        sys.exit()
    sys.argv[0] = os.fspath(Path(sys.modules["trio_multispool.cli"].__file__ or "").parents[1] / "__main__.py")
    sys.exit(main())
