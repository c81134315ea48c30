"""A disk that is full: every operation on a file system without room, and then with a little more each time.

Nothing is mounted anew here. Whatever answers an `Err` has left the entry where it was and nothing else behind, and the
same spool must do it at once when there is room again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import trio

from filesystems.checking import recovered
from filesystems.devices import make, mounted
from filesystems.report import Tally
from filesystems.trouble import ENOUGH, OPERATIONS, ROOMS, Answers, disagreement, held, tried
from helpers.spools import make_spool, state_of
from trio_multispool import DurabilityUnknown, Err, Ok

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from filesystems.kinds import Kind
    from filesystems.trouble import Operation

BLOCK = 4096


MOST_SMALL = 2000


class Filler:
    """Files beside the spool that take all the room: a large one, and small ones that take what is left, and inodes."""

    def __init__(self, directory: Path) -> None:
        """Fill a file system with files in a new directory of it."""
        self._directory = directory
        directory.mkdir()
        self._size, step = 0, 1 << 28
        with open(directory / "large", "wb") as file:
            while step >= BLOCK:
                try:
                    os.posix_fallocate(file.fileno(), self._size, step)
                    self._size += step
                except OSError:
                    step //= 2
        self._small: list[Path] = []
        with contextlib.suppress(OSError):
            for number in range(MOST_SMALL):
                (directory / f"{number}").touch()
                self._small.append(directory / f"{number}")

    def leave(self, room: int) -> None:
        """Give back so many blocks, and as many inodes."""
        os.truncate(self._directory / "large", max(self._size - room * BLOCK, 0))
        for path in self._small[:room]:
            path.unlink()

    def remove(self) -> None:
        """Give all back."""
        shutil.rmtree(self._directory)


def fill(kind: Kind, scratch: Path) -> Iterator[Tally]:
    """Try every operation on a full disk, with more and more room."""
    file, directory = scratch / "device.img", scratch / "mounted"
    directory.mkdir(exist_ok=True)
    for operation in OPERATIONS:
        tally, answers = Tally(f"{kind.name}, {operation.name}"), Answers()
        for room in ROOMS:
            make(kind, file)
            with mounted(kind, file, directory):
                tally.count(trio.run(_trial, directory, operation, room, answers))
            if answers.counts["Ok"] == ENOUGH:
                break
        tally.distinct, tally.notes = len(answers.counts), str(answers)
        yield tally


async def _trial(directory: Path, operation: Operation, room: int, answers: Answers) -> list[str]:
    path = directory / "spool"
    async with await make_spool(path) as spool:
        job = await held(spool)
        filler = Filler(directory / "filler")
        filler.leave(room)
        answer = await tried(operation, spool, job)
        problems = answers.add(answer)
        uncertain = isinstance(answer, Err) and isinstance(answer.error, DurabilityUnknown)
        if not uncertain:
            problems += [f"{fault}, after {answer}" for fault in state_of(path).faults()]
        filler.remove()
        if isinstance(answer, Err) and not uncertain:
            again = await tried(operation, spool, await held(spool))
            problems += [] if isinstance(again, Ok) else [f"there is room, and it answers {again}"]
            answer = again
    found = recovered(path)
    return [*problems, *found.faults, *disagreement(operation, answer, found.entries)]
