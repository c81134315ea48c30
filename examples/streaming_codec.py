"""Data that is too large for memory: a codec that copies files into the spool and out of it, block by block.

    python examples/streaming_codec.py SPOOL FILE...

Compresses each file with gzip, next to where the others are, through a spool.
"""

import enum
import gzip
import shutil
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import msgspec
import trio

from trio_multispool import DataFile, Remove, Spool, Spoolable, Verdict


class FileCopy:
    """A data codec for paths. The library opens, syncs and renames the file in the spool; the codec only fills it."""

    def dump(self, value: Path, file: BinaryIO, /) -> None:
        """Copy the file at `value` into the spool. It is the caller's again when `enqueue` has returned."""
        with value.open("rb") as source:
            shutil.copyfileobj(source, file)

    def load(self, file: BinaryIO, /) -> Path:
        """Copy the data to a temporary file, which is the caller's to remove."""
        with tempfile.NamedTemporaryFile(delete=False) as copy:
            shutil.copyfileobj(file, copy)
        return Path(copy.name)


class Queue(enum.Enum):
    """The queues."""

    COMPRESS = "compress"


class Job(msgspec.Struct):
    """The metadata: where the result belongs."""

    target: str


JOBS = Spoolable(queues=Queue, metadata=Job, data=FileCopy())


def compress(source: Path, target: Path) -> None:
    """Compress a file; done again, it gives the same."""
    with source.open("rb") as plain, gzip.open(target, "wb") as compressed:
        shutil.copyfileobj(plain, compressed)


async def handle(job: Job, data: DataFile[Path]) -> Verdict[Queue, Job]:
    """Work on a copy. A program that wants no copy can read `data.path`, for as long as the entry is its own."""
    copy = (await data.load()).unwrap()
    try:
        await trio.to_thread.run_sync(compress, copy, Path(job.target))
    finally:
        copy.unlink()
    print(job.target)
    return Remove()


async def main(path: str, files: list[str]) -> None:
    """Enqueue the files, and work them off."""
    async with (await Spool.create(path, JOBS)).unwrap() as spool:
        for name in files:
            (await spool.enqueue(Queue.COMPRESS, Job(f"{name}.gz"), Path(name))).unwrap()
        async with spool.reader(Queue.COMPRESS) as reader:
            (await reader.iter_available(handle, concurrency=2)).unwrap()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2:])
