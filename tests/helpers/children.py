"""Child processes that do what a function says, and talk with the test by lines on pipes.

A test gives a function of its own, whose source is run in the child: it imports what it needs itself, and its first
argument is the `Parent`. A line is a JSON list of words. Nobody sleeps: each side waits for the other's line.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import preforked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

_START = """\
from __future__ import annotations
from helpers.children import Parent
{function}
{name}(Parent(), *{arguments!r})
"""


class Parent:
    """The test, as its child sees it."""

    def say(self, *words: Any) -> None:
        """Tell the test; returns at once."""
        print(json.dumps(words), flush=True)

    def hear(self) -> list[Any]:
        """Wait for the test's next line; a test that is gone ends the child."""
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        heard: list[Any] = json.loads(line)
        return heard


class Child:
    """A process that runs `function(parent, *arguments)`; put `with` around it: none outlives the test."""

    def __init__(self, function: Callable[..., None], *arguments: str | float | Path) -> None:
        """Start it."""
        plain = tuple(os.fspath(word) if isinstance(word, Path) else word for word in arguments)
        self._servers = [word for word in plain if isinstance(word, str) and "://" in word]
        source = _START.format(
            function=textwrap.dedent(inspect.getsource(function)),
            name=function.__name__,
            arguments=plain,
        )
        self.process = preforked.Process([], code=source, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        """Return the child."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it if it still runs, stopped or not, and close the pipes."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # what it was told and had not read
                pipe.close()
        self.process.wait()

    def __iter__(self) -> Iterator[list[Any]]:
        """Hear the child until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def hear(self) -> list[Any]:
        """Wait for its next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the child ended with {self.process.wait()} and said nothing; see its standard error"
        heard: list[Any] = json.loads(line)
        return heard

    def tell(self, *words: Any) -> None:
        """Tell it something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Send SIGKILL, and wait until it is dead, also for a server that it was given the location of a spool in."""
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL
        self._be_mourned()

    def kill_unseen(self) -> None:
        """Send SIGKILL, and wait until it is a zombie: dead, and still in the table of processes."""
        self.process.kill()
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        self._be_mourned()

    def _be_mourned(self) -> None:
        for location in self._servers:
            from helpers import postgresql

            postgresql.await_death(location, self.process.pid)

    def stop(self) -> None:
        """Send SIGSTOP, and wait until it has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        """Send SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Wait until it has ended by itself, and well."""
        assert self.process.wait() == 0


@contextlib.contextmanager
def quick_directory(otherwise: Path) -> Iterator[Path]:
    """Yield an empty directory in memory, where there is one: for tests that make thousands of calls."""
    if not os.access("/dev/shm", os.W_OK | os.X_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="trio-multispool-") as directory:
        yield Path(directory)
