"""A disk that fails: a device whose file lies on a full tmpfs, so that a write of what it had not yet stored fails.

The file system on it is told of an error, at another of its writes each time. Power is lost right after the answer.
Then there is room again; what the device has is mounted anew, and the spool must hold what its answer said.

The device writes page by page. Of a larger write, tmpfs may take the first pages only, and the loop driver (seen in
Linux 6.18) then answers that all is written: that is a disk that lies, and no disk that fails.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import trio

from filesystems.checking import recovered
from filesystems.devices import make, mounted, run, unmount
from filesystems.images import Image
from filesystems.moods import write_everything_out
from filesystems.report import Tally
from filesystems.trouble import ENOUGH, OPERATIONS, ROOMS, Answers, disagreement, held, tried
from helpers.spools import Mail, load_spool, make_spool
from trio_multispool import SpoolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from filesystems.kinds import Kind
    from filesystems.trouble import Operation
    from trio_multispool import Result

SIZE = "32m"


@contextlib.contextmanager
def _small_tmpfs(directory: Path) -> Iterator[Path]:
    directory.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", os.fspath(directory))
    try:
        yield directory
    finally:
        unmount(directory)


@contextlib.contextmanager
def _full(directory: Path, room: int) -> Iterator[None]:
    """Fill a tmpfs, but for some pages."""
    filler = directory / "filler"
    with open(filler, "wb") as file:
        free = os.statvfs(directory)
        os.posix_fallocate(file.fileno(), 0, max(free.f_bavail - room, 1) * free.f_bsize)
    try:
        yield
    finally:
        filler.unlink()


def _forget_zeros(directory: Path, file: Path) -> None:
    """Make holes of what is all zeros, so that writing there can fail too: a journal, above all."""
    write_everything_out(directory)
    run("fallocate", "--dig-holes", os.fspath(file))


def fail(kind: Kind, scratch: Path) -> Iterator[Tally]:
    """Try every operation on a failing disk, with more and more room before it fails."""
    directory = scratch / "mounted"
    directory.mkdir(exist_ok=True)
    with _small_tmpfs(scratch / "small") as small:
        file = scratch / "device.img"
        make(kind, file)  # not on the small one: mkfs writes more than is kept
        with mounted(kind, file, directory):
            trio.run(_prepare, directory / "spool")
        start = Image.read(file)
        for operation in OPERATIONS:
            tally, answers = Tally(f"{kind.name}, {operation.name}"), Answers()
            for room in ROOMS:
                start.write(small / "device.img")
                tally.count(_trial(kind, small, operation, room, answers))
                if answers.counts["Ok"] == ENOUGH:
                    break
            tally.distinct, tally.notes = len(answers.counts), str(answers)
            yield tally


async def _prepare(path: Path) -> None:
    async with await make_spool(path) as spool, await held(spool):
        pass


def _trial(kind: Kind, small: Path, operation: Operation, room: int, answers: Answers) -> list[str]:
    directory = small.with_name("mounted")

    async def attempt() -> tuple[Result[Any, Any], Image]:
        async with await load_spool(directory / "spool") as spool:
            job = await held(spool)
            _forget_zeros(directory, file)
            with _full(small, room):
                answer = await tried(operation, spool, job)
                return answer, Image.read(file)

    file = small / "device.img"
    with mounted(kind, file, directory, by_page=True):
        answer, left = trio.run(attempt)
    problems = answers.add(answer)
    left.write(file)
    with mounted(kind, file, directory):
        try:
            found = recovered(directory / "spool")
        except (OSError, SpoolError) as error:
            return [*problems, f"with room for {room}: {answer}, and then {error!r}"]
        problems += [*found.faults, *disagreement(operation, answer, found.entries)]
        if not problems:
            trio.run(_works_again, directory / "spool")
    return problems


async def _works_again(path: Path) -> None:
    async with await load_spool(path) as spool:
        for queue in Mail:
            for entry in (await spool.entries(queue)).unwrap():
                async with (await entry.checkout()).unwrap() as job:
                    (await job.remove()).unwrap()
        async with await held(spool) as job:
            (await job.save(Mail.RETRY)).unwrap()
