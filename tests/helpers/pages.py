"""Pages that show programs and consoles: taken apart, typed into real shells, and compared with what is seen then."""

from __future__ import annotations

import ast
import collections
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
from typing import TYPE_CHECKING, NamedTuple, final

from helpers.terminals import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(?:^`(?P<file>[\w.]+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TOKEN = re.compile(r"\d{8}T\d{6}\.\d{9}Z-[0-9a-f]{8}|\b8\d{3}\b")
"""What differs from one time to the next: names of entries, and numbers of processes."""

TOKEN_SEEN = r"\d{8}T\d{6}\.\d{9}Z-[0-9a-f]{8}|\d+"

PATIENCE = 120.0
"""How long a line may take to come, in seconds: a limit for a hung test only."""


class Piece(NamedTuple):
    """A block of a page: a file to write, or a console to type."""

    file: str | None
    language: str
    text: str


class Step(NamedTuple):
    """Something to type, if anything, by whom (the word before the prompt), and the lines that follow."""

    who: str
    command: str
    shown: list[str]


def pieces(page: Path) -> list[Piece]:
    """Return a page's blocks in their order, named files and all others."""
    return [Piece(match["file"], match["language"], match["text"]) for match in BLOCK.finditer(page.read_text("utf-8"))]


def files(page: Path) -> dict[str, str]:
    """Return the files that a page has, by their names."""
    return {piece.file: piece.text for piece in pieces(page) if piece.file is not None}


def steps(text: str) -> list[Step]:
    """Take a console apart: each line with a prompt (`$ `, `# `, `worker$ `) is typed, and what follows is shown."""
    found: list[Step] = []
    for line in text.splitlines():
        prompt = re.fullmatch(r"(\w*)[$#](?: (.*))?", line)
        if prompt is not None:
            found.append(Step(prompt[1], prompt[2] or "", []))
        else:
            found[-1].shown.append(line)
    return found


def consoles(page: Path) -> list[list[Step]]:
    """Return the steps of each console on a page."""
    return [steps(piece.text) for piece in pieces(page) if piece.language == "console"]


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
        """Return the next line that it shows; of what was killed, it says what it says in a terminal."""
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
        return re.sub(r"bash: line \d+: +\d+ Killed .*", "Killed", line.decode())

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

    def check(self, shown: list[str], seen: list[str]) -> None:
        """Compare a page's lines with those seen, and learn what is new. `…` is part of a line, or alone any lines."""
        new: dict[str, str] = {}

        def pattern(part: str) -> str:
            if part == "…":
                return ".*"
            if not TOKEN.fullmatch(part) or part in self:
                return re.escape(self.get(part, part))
            if part in new:
                return f"(?P={new[part]})"
            new[part] = f"new{len(new)}"
            return f"(?P<{new[part]}>{TOKEN_SEEN})"

        lines = [
            r"(?:.*\n)*?" if line == "…" else "".join(map(pattern, re.split(f"(…|{TOKEN.pattern})", line))) + r"\n"
            for line in shown
        ]
        found = re.fullmatch("".join(lines), "".join(f"{line}\n" for line in seen))
        assert found is not None, "\n".join([*seen, "--- where the page shows", *shown])
        self.update({part: found[group] for part, group in new.items()})


def type_out(page: Path, folder: Path, execute: Callable[[str], None] | None = None) -> int:
    """Write a page's files and type its commands, in the page's order; return how many commands there were.

    What is SQL is executed, where there is something to do it.

    Raises `AssertionError` for the first command that shows something else than the page. What is typed by somebody
    (`worker$ `) may go on: its lines are read as they come.
    """
    known, typed = Known(), 0
    with contextlib.ExitStack() as stack:
        shells = collections.defaultdict[str, Shell](lambda: stack.enter_context(contextlib.closing(Shell(folder))))
        for piece in pieces(page):
            if piece.file is not None:
                _ = (folder / piece.file).write_text(piece.text, "utf-8")
            if piece.language == "sql" and execute is not None:
                execute(piece.text)
            for step in steps(piece.text) if piece.language == "console" else ():
                typed += 1
                command = known.told(step.command)
                if command.startswith("multispool top "):
                    look_at(command, folder)
                elif not step.who:
                    known.check(step.shown, shells[""].run(command))
                else:
                    if command:
                        shells[step.who].type(command)
                    for shown in step.shown:
                        line = shells[step.who].line()
                        while line == "Killed" != shown:  # of what was killed at another step
                            line = shells[step.who].line()
                        known.check([shown], [line])
    return typed


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


def lines_of_code(source: str) -> int:
    """Count the lines of a program, without empty ones and docstrings."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)]
    told = {line for node in docstrings for line in range(node.lineno, node.end_lineno + 1)}
    return sum(1 for number, line in enumerate(source.splitlines(), 1) if line.strip() and number not in told)
