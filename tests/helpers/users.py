"""Real users: root, and two that share a group. Code runs as one of them by `setpriv`, in a process of its own.

An interpreter that lies where only root may go is mounted anew for these processes, where others may go too.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from helpers import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator


class User(NamedTuple):
    """A user with a group of the same number, and perhaps another group."""

    number: int
    other_groups: tuple[int, ...] = ()

    def privileges(self) -> list[str]:
        """Return the command that lets another run as this user."""
        groups = ",".join(map(str, self.other_groups))
        return [
            *("setpriv", f"--reuid={self.number}", f"--regid={self.number}"),
            f"--groups={groups}" if groups else "--clear-groups",
        ]


SHARED = 61_300
"""A group."""
ROOT, ANNE, BOB = User(0), User(61_001, (SHARED,)), User(61_002, (SHARED,))
STRANGER = User(61_003)
"""Neither root nor in the group."""

_AS = """
import os, subprocess, sys, tempfile
sys.path[:0] = {path!r}
from helpers import mounts, users
users.open_the_way({path!r} + [sys.prefix, sys.base_prefix])
sys.exit(subprocess.run({command!r}).returncode)
"""


@functools.cache
def why_not() -> str:
    """Say why this process cannot run others as these users; empty if it can."""
    if os.geteuid() != 0:
        return "needs root, to run code as other users"
    if shutil.which("setpriv") is None:
        return "needs setpriv, of util-linux"
    return mounts.why_not()


def open_the_way(needed: list[str]) -> None:
    """Let everybody reach these directories, in a mount namespace of our own: cover what nobody else may enter."""
    mounts.enter_private()
    stash = tempfile.mkdtemp()
    mounts.tmpfs(stash)
    shut: dict[str, list[str]] = {}
    for path in {os.path.realpath(each) for each in needed if os.path.isdir(each)}:
        for above in reversed(Path(path).parents):
            if not above.stat().st_mode & 0o001:
                shut.setdefault(str(above), []).append(path)
                break
    for number, (above, paths) in enumerate(shut.items()):
        stashed = {}
        for path in paths:
            stashed[path] = os.path.join(stash, f"{number}-{len(stashed)}")
            os.mkdir(stashed[path])
            mounts.bind(path, stashed[path])
        mounts.tmpfs(above)
        os.chmod(above, 0o755)
        for path, source in stashed.items():
            os.makedirs(path, exist_ok=True)
            mounts.bind(source, path)


@contextmanager
def common_ground() -> Iterator[Path]:
    """Make a directory that all these users can reach, and that belongs to root."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def run_as(user: User, code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run code as this user, in an interpreter that can import the library and `helpers`."""
    path = [entry for entry in sys.path if entry]
    source = f"import sys\nsys.path[:0] = {path!r}\n{textwrap.dedent(code)}"
    return command_as(user, sys.executable, "-c", source, *arguments)


def command_as(user: User, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as this user, with nothing on its standard input."""
    path = [entry for entry in sys.path if entry]
    words = [*user.privileges(), *map(os.fspath, command)]
    return subprocess.run(
        [sys.executable, "-c", _AS.format(path=path, command=words)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
    )


def multispool_as(user: User, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `multispool` as this user."""
    path = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:0] = {path!r}; from trio_multispool.cli import main; sys.exit(main(sys.argv[1:]))"
    return command_as(user, sys.executable, "-c", code, *arguments)
