"""The table of rooms in ARCHITECTURE.md, derived from the layers in pyproject.toml and from the tree.

`python tests/helpers/rooms.py` writes it anew; `tests/documents/test_architecture.py` says when that is needed.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "ARCHITECTURE.md"
PACKAGE = PROJECT / "src" / "trio_multispool"
BEGIN, END = "<!-- rooms: begin -->\n", "<!-- rooms: end -->\n"


def layers() -> list[list[str]]:
    """Return the rooms as import-linter knows them, lowest first; those in one list may not import each other."""
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [contract] = [each for each in settings["contracts"] if each["id"] == "rooms"]
    named = [[room.strip(" ()") for room in re.split(r"[|:]", layer)] for layer in reversed(contract["layers"])]
    return [[room for room in layer if not room.startswith("__")] for layer in named if layer]


def first_line(path: Path) -> str:
    """Return what a module's docstring says first."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


def rows_of(room: Path, name: str) -> Iterator[str]:
    """Yield a row for a room, and one for each room inside it."""
    if not room.is_dir():
        yield f"| `{name}` | {first_line(room.with_suffix('.py'))} | |"
        return
    files = ", ".join(f"`{file.stem}`" for file in sorted(room.glob("*.py")) if file.stem != "__init__")
    yield f"| `{name}/` | {first_line(room / '__init__.py')} | {files} |"
    for inner in sorted(room.iterdir()):
        if (inner / "__init__.py").is_file():
            yield from rows_of(inner, f"{name}/{inner.name}")


def table() -> str:
    """Return the table, lowest room first."""
    rows = [row for layer in layers() for room in layer for row in rows_of(PACKAGE / room, room)]
    return "\n".join(["| room | what is in it | its files |", "|---|---|---|", *rows, ""])


def stands() -> str:
    """Return the table as it stands on the page."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    text = PAGE.read_text()
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    _ = PAGE.write_text(head + BEGIN + table() + END + tail)
