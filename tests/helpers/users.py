"""Real users: root, and two that share a group. Code runs as one of them in a process of its own.

An interpreter that lies where only root may go is mounted anew for these processes, where others may go too.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import sys
import tempfile
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from helpers import mounts, preforked
from helpers.children import quick_directory

if TYPE_CHECKING:
    import subprocess
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

    def become(self) -> None:
        """Make this process, which is root's, one of this user, to whom the way is open to all that it may import."""
        open_the_way([*filter(None, sys.path), sys.prefix, sys.base_prefix])
        os.setgroups(self.other_groups)
        os.setresgid(self.number, self.number, self.number)
        os.setresuid(self.number, self.number, self.number)
        # As `exec` would: without it, what /proc tells of this process is root's.
        assert ctypes.CDLL(None).prctl(_SET_DUMPABLE, 1, 0, 0, 0) == 0


_SET_DUMPABLE = 4  # PR_SET_DUMPABLE
SHARED = 61_300
"""A group."""
ROOT, ANNE, BOB = User(0), User(61_001, (SHARED,)), User(61_002, (SHARED,))
STRANGER = User(61_003)
"""Neither root nor in the group."""


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
    with tempfile.TemporaryDirectory() as otherwise, quick_directory(Path(otherwise)) as directory:
        directory.chmod(0o755)
        yield directory


def run_as(user: User, code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run code as this user, where the library and `helpers` can be imported, with nothing on its standard input."""
    return _run_as(user, textwrap.dedent(code), *arguments)


def multispool_as(user: User, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `multispool` as this user likewise."""
    return _run_as(user, None, *arguments)


def _run_as(user: User, code: str | None, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words, environment = [*map(os.fspath, arguments)], {"PATH": os.environ["PATH"]}
    return preforked.run(words, cwd=Path("/"), env=environment, code=code, as_user=user)
