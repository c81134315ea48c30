"""The trees that an operation leaves when its process is killed before its n-th system call, for every n.

A process is really forked and really killed for each. The kernel drops the locks of the dead, so the tree is all that
is left of it, and a copy of the tree is as good as killing again: that is how many things can be tried after one kill.
Equal trees are told once.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, NamedTuple

from helpers.children import Child
from helpers.spools import contents

if TYPE_CHECKING:
    from pathlib import Path


class Killed(NamedTuple):
    """What one kill left."""

    before: str
    """The call before which it was killed, in words; empty if it came to its end, and was killed then."""
    path: Path
    """The spool."""


def kill_at_every_call(base: Path, operation: str, *, flags: bool = True) -> list[Killed]:
    """Do an operation on entry `a`, killed at each call in turn; return the different trees.

    Without `flags`, as on a file system whose renames know none: then it is also killed between the two halves of a
    move.
    """
    distinct: dict[str, Killed] = {}
    with Child(_executioner, base, operation, flags) as child:
        for before, path in child:
            tree = re.sub(r"\.unsafe\.[^.']+", ".unsafe", repr(contents(base / path)))
            distinct.setdefault(tree, Killed(before, base / path))
        child.end()
    return list(distinct.values())


def copied(killed: Killed, to: Path) -> Path:
    """Copy a tree to a new directory; a file with two names stays one file."""
    target = to / "spool"
    shutil.rmtree(to, ignore_errors=True)
    copies: dict[int, str] = {}

    def copy(source: str, destination: str) -> None:
        first = copies.setdefault(os.stat(source).st_ino, destination)
        if first == destination:
            shutil.copy2(source, destination)
        else:
            os.link(first, destination)

    shutil.copytree(killed.path, target, copy_function=copy)
    return target


def _executioner(parent, base, operation, flags) -> None:
    import functools
    import os
    from pathlib import Path

    from helpers.forks import in_a_fork
    from helpers.stores import OPERATIONS, make_store
    from helpers.syscalls import KillingAndTelling, KillingWithoutFlags
    from trio_multispool.storage.directory.store import DirectoryStorage

    prepare, perform = OPERATIONS[operation]

    def die_doing_it(path: Path, n: int, pipe: int) -> None:
        calls = (KillingAndTelling if flags else KillingWithoutFlags)(pipe)
        storage = DirectoryStorage.open_unsafe(path, calls=calls)
        prepared = prepare(storage, "a")
        calls.arm(n)
        perform(storage, "a", prepared)
        os._exit(0)

    survived, n = False, 0
    while not survived:
        n += 1
        path = Path(base, f"{n:03}", "spool")
        make_store(path).close()
        before, survived = in_a_fork(functools.partial(die_doing_it, path, n))
        parent.say(before, os.fspath(path.relative_to(base)))
