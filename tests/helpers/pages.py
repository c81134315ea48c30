"""Pages whose programs are files, and whose consoles are typed: what they show is what is seen."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"(?:^`(?P<file>[\w.]+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

PATIENCE = 120.0
"""How long a command may take, in seconds: a limit for a hung test only."""


class Piece(NamedTuple):
    """A block of a page: a file to write, or a console to type."""

    file: str | None
    language: str
    text: str


class Step(NamedTuple):
    """A command, and what it shows."""

    command: str
    shown: str


def pieces(page: Path) -> list[Piece]:
    """Return a page's blocks in their order, named files and all others."""
    text = page.read_text(encoding="utf-8")
    return [Piece(match["file"], match["language"], match["text"]) for match in _BLOCK.finditer(text)]


def files(page: Path) -> dict[str, str]:
    """Return the files that a page has, by their names."""
    return {piece.file: piece.text for piece in pieces(page) if piece.file is not None}


def pages_with_files() -> list[Path]:
    """Find the pages that have files. What is typed on them is run from top to bottom."""
    return [page for page in sorted(PROJECT.glob("docs/*.md")) if files(page)]


def steps(text: str) -> Iterator[Step]:
    """Take a console apart: each line after `$ ` is a command, and what follows is what it shows."""
    for typed in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = typed.partition("\n")
        yield Step(command, shown)


def as_pattern(shown: str) -> str:
    """Return a pattern for what a page shows. A line of `…` alone is any number of lines; elsewhere, a part of one."""
    return "".join(
        r"(?:.*\n)*?" if line == "…\n" else ".*".join(map(re.escape, line.split("…")))
        for line in shown.splitlines(keepends=True)
    )


def type_out(page: Path, folder: Path) -> int:
    """Write a page's files and type its commands, in the page's order; return how many commands there were.

    Raises `AssertionError` for the first command that shows something else than the page.
    """
    bin_directory = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    typed = 0
    for piece in pieces(page):
        if piece.file is not None:
            _ = (folder / piece.file).write_text(piece.text, encoding="utf-8")
        elif piece.language == "console":
            for step in steps(piece.text):
                ended = subprocess.run(
                    ["bash", "-c", step.command],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
                seen = ended.stdout + (
                    "Killed\n" if ended.returncode == -signal.SIGKILL else ""
                )  # as a terminal's shell
                is_it = re.fullmatch(as_pattern(step.shown), seen) is not None
                assert is_it, f"$ {step.command}\n{seen}--- where the page shows\n{step.shown}"
                typed += 1
    return typed


def lines_of_code(source: str) -> int:
    """Count the lines of a program, without empty ones and docstrings."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)]
    told = {line for node in docstrings for line in range(node.lineno, node.end_lineno + 1)}
    return sum(1 for number, line in enumerate(source.splitlines(), 1) if line.strip() and number not in told)
