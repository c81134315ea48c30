"""Pages that show what to type and what is seen then: taken apart, typed into a real shell, and compared."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, final

from helpers.rooms import PROJECT
from helpers.terminals import Terminal

BLOCK = re.compile(r"(?:^`(?P<file>[\w.]+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TOKEN = re.compile(r"\d{8}T\d{6}\.\d{9}Z-[0-9a-f]{8}|\b8\d{3}\b")
"""What differs from one time to the next: names of entries, and numbers of processes."""

TOKEN_SEEN = r"\d{8}T\d{6}\.\d{9}Z-[0-9a-f]{8}|\d+"

PATIENCE = 60.0
"""How long a line may take to come, in seconds: a limit for a hung test only."""


class Step(NamedTuple):
    """Something to type, if anything, and the lines that follow."""

    in_worker: bool
    command: str
    shown: list[str]


def page(name: str) -> str:
    """Return the text of a page of the documentation."""
    return (PROJECT / "docs" / name).read_text("utf-8")


def blocks(text: str) -> list[tuple[str | None, str, str]]:
    """Return a page's blocks: the file that they are, if any, their languages, and texts."""
    return [(match["file"], match["language"], match["text"]) for match in BLOCK.finditer(text)]


def steps(text: str) -> list[Step]:
    """Take apart what stands in a block for terminals."""
    found: list[Step] = []
    for line in text.splitlines():
        prompt = re.fullmatch(r"(worker)?\$ ?(.*)", line)
        if prompt is not None:
            found.append(Step(prompt[1] is not None, prompt[2], []))
        else:
            found[-1].shown.append(line)
    return found


@final
class Shell:
    """A shell that is typed into; what it shows is read line by line."""

    def __init__(self, folder: Path) -> None:
        """Begin in a folder, which is also the home; programs in its folder `bin` come first."""
        path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PATH": path, "HOME": str(folder)}
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._rest = b""

    def type(self, command: str) -> None:
        """Type a line."""
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{command}\n".encode())
        self._shell.stdin.flush()

    def line(self) -> str:
        """Return the next line that it shows."""
        assert self._shell.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._shell.stdout, selectors.EVENT_READ)
            until = time.monotonic() + PATIENCE
            while b"\n" not in self._rest:
                assert selector.select(until - time.monotonic()), f"nothing came after {self._rest!r}"
                read = os.read(self._shell.stdout.fileno(), 65536)
                assert read, f"the shell ended after {self._rest!r}"
                self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def run(self, command: str) -> list[str]:
        """Type a command that comes to its end, and return all lines that it shows."""
        self.type(f"{command}\necho and nothing else")
        return list(iter(self.line, "and nothing else"))

    def close(self) -> None:
        """End the shell, and what it may still run."""
        os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()


class Known(dict[str, str]):
    """What the names and numbers on the page are this time."""

    def told(self, text: str) -> str:
        """Put them into a command."""
        return TOKEN.sub(lambda found: self[found[0]], text)

    def check(self, shown: str, line: str) -> None:
        """Compare a line of the page with what was seen, and learn what is new in it."""
        parts = re.split(f"(…|{TOKEN.pattern})", shown)
        new = [part for part in parts if TOKEN.fullmatch(part) and part not in self]
        assert len(new) == len(set(new))
        pattern = "".join(
            ".*" if part == "…" else f"({TOKEN_SEEN})" if part in new else re.escape(self.get(part, part))
            for part in parts
        )
        found = re.fullmatch(pattern, line)
        assert found is not None, f"{line!r} was seen where the page shows {shown!r}"
        self.update(zip(new, found.groups(), strict=True))


def look_at(command: str, folder: Path) -> None:
    """Start the live view in a terminal, see the queue in it, and leave it as the page says."""
    program, *arguments = command.split()
    words = [str(Path(sys.executable).parent / program), *arguments]
    environment = {**os.environ, "TERM": "xterm-256color"}
    start = functools.partial(subprocess.Popen, words, cwd=folder, env=environment)
    with contextlib.closing(Terminal(start, 100, 30)) as terminal:
        terminal.until(lambda shown: "send" in shown and "failed" in shown)
        terminal.press("q")
        assert terminal.end() == 0
