"""Which files the demonstration enqueues, and whether they are at the end what the spool says."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SKIPPED = {"__pycache__", "_build", "build", "dist", "node_modules", "venv"}
"""Directories that a folder without git has and nobody wrote, besides the hidden ones."""


def find_files(folder: Path) -> list[bytes]:
    """Return the relative paths of the files that git keeps in a folder; without git, of those that one would keep."""
    command = ["git", "-C", str(folder), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.split(b"\0")[:-1]
    except (OSError, subprocess.CalledProcessError):
        listed = []
    names = set(listed) or set(walk(folder))  # a set: a file in a merge conflict is listed three times
    return sorted(name for name in names if is_regular(folder / os.fsdecode(name)))


def walk(folder: Path) -> Iterator[bytes]:
    """Find all files but those in hidden and in build directories."""
    for directory, below, files in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".") and name not in SKIPPED]
        for name in files:
            if not name.startswith("."):
                yield os.fsencode(os.path.relpath(Path(directory, name), folder))


def is_regular(path: Path) -> bool:
    """Tell a file from symbolic links, submodules, and what git lists and somebody deleted."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def compare(folder: Path, files: Iterable[bytes], found: Mapping[bytes, tuple[int, str]]) -> list[str]:
    """Read every file once more, and say for which of them `found` does not have its size and SHA-256."""
    wrong = []
    for name in files:
        path = folder / os.fsdecode(name)
        try:
            with path.open("rb") as opened:
                now = os.fstat(opened.fileno()).st_size, hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            wrong.append(f"{path!r} cannot be compared any more: {error.strerror}")
            continue
        if name not in found:
            wrong.append(f"{path!r} has no entry in the queue `done`")
        elif found[name] != now:
            wrong.append(f"{path!r} is not what its entry says it was; was it changed in the meantime?")
    return wrong
