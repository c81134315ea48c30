"""The tutorial: whoever types what it says sees what it shows. Two real shells, and every block of the page."""

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

import pytest

from helpers.terminals import Terminal

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?:^`(?P<file>[\w.]+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TOKEN = re.compile(r"\d{8}T\d{6}\.\d{9}Z-[0-9a-f]{8}|\b8\d{3}\b")
"""What differs from one time to the next: names of entries, and numbers of processes."""

PATIENCE = 60.0
"""How long a line may take to come, in seconds: a limit for a hung test only."""


class Step(NamedTuple):
    """Something to type, if anything, and the lines that follow."""

    in_worker: bool
    command: str
    shown: list[str]


def blocks() -> list[tuple[str | None, str, str]]:
    """Return the page's blocks: the file that they are, if any, their languages, and texts."""
    return [(match["file"], match["language"], match["text"]) for match in BLOCK.finditer(PAGE.read_text("utf-8"))]


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
        """Begin in a folder."""
        bin_directory = Path(sys.executable).parent
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PATH": f"{bin_directory}:{os.environ['PATH']}"}
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


TOKEN_SEEN = r"\d{8}T\d{6}\.\d{9}Z-[0-9a-f]{8}|\d+"


def test_every_block_is_of_a_kind_that_is_run():
    """But for the one that installs, which is what made this environment."""
    found = blocks()
    assert {language for _, language, _ in found} == {"sh", "python", "console"}
    assert [text for _, language, text in found if language == "sh"] == [found[0][2]]
    assert [name for name, language, _ in found if language == "python"] == ["mail.py", "send.py", "worker.py"]
    assert PAGE.read_text("utf-8").count("\n```") == 2 * len(found)


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


def test_whoever_types_it_sees_what_it_shows(tmp_path):
    """Files are made, commands are run, and the worker's lines come, in the page's order."""
    known = Known()
    with contextlib.ExitStack() as open_shells:
        shells = [open_shells.enter_context(contextlib.closing(Shell(tmp_path))) for _ in range(2)]
        typed = 0
        for name, language, text in blocks():
            if language == "python":
                assert name is not None
                (tmp_path / name).write_text(text)
            for step in steps(text) if language == "console" else ():
                typed += 1
                command = known.told(step.command)
                if command.startswith("multispool top "):
                    look_at(command, tmp_path)
                    continue
                shell = shells[step.in_worker]
                if command:
                    shell.type(command)
                for shown in step.shown:
                    line = shell.line()
                    while "Killed" in line and "Killed" not in shown:  # what the shell says of it, in words of its own
                        line = shell.line()
                    known.check(shown, line)
                if not step.in_worker:
                    shell.type("echo and nothing else")
                    assert shell.line() == "and nothing else"
        assert typed >= 16


@pytest.mark.parametrize("seen", ["nothing", "20261130T055829.819942597Z-50ad19c5 is", ""])
def test_a_line_that_is_not_what_the_page_shows_fails(seen):
    """The check can fail."""
    with pytest.raises(AssertionError):
        Known().check("20261130T055829.819942597Z-50ad19c5 is on disk", seen)
