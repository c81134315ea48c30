"""The command `multispool` in a process of its own, without the time that Python takes to start and to import.

A server, one for each process that runs tests, has imported everything, has one thread, and forks for each command. So
a command has its own signals, descriptors, working directory and environment, and ends as a process does. Start a
process anew (`Multispool.anew`, `Multispool.start`) where starting is the point.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

STREAMS = 3
LONGEST_REQUEST = 1 << 20


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: dict[str, str],
    text: bool = True,
    umask: int | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end, as `subprocess.run` does; the options that there are mean the same."""
    with _Streams(text=text, **options) as streams, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(_server())
        asked = {"arguments": list(arguments), "cwd": os.fspath(cwd), "env": env, "umask": umask}
        request = json.dumps(asked).encode()
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], streams.theirs)
        connection.sendall(request)
        streams.let_go_of_theirs()
        stdout, stderr = streams.communicate()
        status = connection.makefile("r").readline()
    assert status, "the server of commands has ended"
    return subprocess.CompletedProcess(list(arguments), int(status), stdout, stderr)


class _Streams:
    """The three standard streams of a command: their ends, and ours."""

    def __init__(  # noqa: PLR0913  # those of `subprocess.run`
        self,
        *,
        text: bool,
        input: str | bytes | None = None,  # noqa: A002  # as there
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        capture_output: bool = True,
    ) -> None:
        self._text = text
        self._owned: list[int] = []
        self._input = input.encode() if isinstance(input, str) else input
        self._writing: int | None = None
        self._reading: list[int | None] = [None, None]
        self.theirs = [self._for_reading(stdin)]
        for number, stream in enumerate((stdout, stderr)):
            self.theirs.append(self._for_writing(number, stream, captured=capture_output))

    def _for_reading(self, stdin: Any) -> int:
        if self._input is not None:
            theirs, self._writing = self._pipe()
            return theirs
        return self._own(os.open(os.devnull, os.O_RDONLY)) if stdin in (None, subprocess.DEVNULL) else _fd(stdin)

    def _for_writing(self, number: int, stream: Any, *, captured: bool) -> int:
        if stream == subprocess.STDOUT:
            return self.theirs[1]
        if stream == subprocess.PIPE or (stream is None and captured):
            self._reading[number], theirs = self._pipe()
            return theirs
        return self._own(os.open(os.devnull, os.O_WRONLY)) if stream == subprocess.DEVNULL else _fd(stream, number + 1)

    def _pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        self._owned += [reading, writing]
        return reading, writing

    def _own(self, fd: int) -> int:
        self._owned.append(fd)
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        for fd in self._owned:
            os.close(fd)

    def _close(self, fd: int) -> None:
        self._owned.remove(fd)
        os.close(fd)

    def let_go_of_theirs(self) -> None:
        """Close the command's ends, but for those that the caller owns."""
        for fd in set(self.theirs) & set(self._owned):
            self._close(fd)

    def communicate(self) -> tuple[Any, Any]:
        """Write the input, and read all that the command writes."""
        found: list[bytes | None] = [None, None]

        def read(number: int, fd: int) -> None:
            pieces = []
            while piece := os.read(fd, 1 << 16):
                pieces.append(piece)
            found[number] = b"".join(pieces)

        readers = [
            threading.Thread(target=read, args=(number, fd))
            for number, fd in enumerate(self._reading)
            if fd is not None
        ]
        for reader in readers:
            reader.start()
        if self._writing is not None:
            self._write(self._writing)
        for reader in readers:
            reader.join()
        if not self._text:
            return found[0], found[1]
        out, err = (each if each is None else each.decode() for each in found)
        return out, err

    def _write(self, fd: int) -> None:
        left = memoryview(self._input or b"")
        try:
            while left:
                left = left[os.write(fd, left) :]
        except BrokenPipeError:  # it has read enough
            pass
        self._close(fd)


def _fd(stream: Any, default: int = 0) -> int:
    if stream is None:
        return default
    return stream if isinstance(stream, int) else stream.fileno()


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


def serve(address: str) -> None:
    """Fork for each command, until standard input is closed. Returns in each command's process, ready to be run."""
    _warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the guardians
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
                return _guard(connection)
            connection.close()


def _warm_up() -> None:
    """Run two commands into nothing, so that what they import late is there already."""
    import trio  # noqa: F401  # for the commands that run it

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


def _guard(connection: socket.socket) -> None:
    """Be the parent of one command: fork it, wait for its end, and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, fds, _, _ = socket.recv_fds(connection, 4, STREAMS)
    request = json.loads(connection.makefile("rb").read(int.from_bytes(length, "big")))
    child = os.fork()
    if child:
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        connection.sendall(f"{code}\n".encode())
        os._exit(0)
    connection.close()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    for fd in fds:
        if fd >= STREAMS:
            os.close(fd)
    # New objects: those of the server know whether *its* streams can be sought and are terminals.
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if request["umask"] is not None:
        os.umask(request["umask"])
    sys.argv[1:] = request["arguments"]


if __name__ == "__main__":
    from trio_multispool.cli import main

    serve(sys.argv[1])
    sys.argv[0] = os.fspath(Path(sys.modules["trio_multispool.cli"].__file__ or "").parents[1] / "__main__.py")
    sys.exit(main())
