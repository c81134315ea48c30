"""A spool with very many entries, laid out as docs/on-disk-format.md says: not by the library, whose time it is not."""

from __future__ import annotations

from pathlib import Path

import trio

from bench.systems.own import NOTES
from bench.work import QUEUES, metadata_of
from trio_multispool import Spool


def fill(path: str, entries: int) -> None:
    """Make a spool with so many entries in its first queue, under names as the library gives them."""

    async def create() -> None:
        (await Spool.create(path, NOTES)).unwrap().close()

    trio.run(create)
    contents = {".registry": b"", ".data": b"x", QUEUES[0]: metadata_of(0)}
    for directory, content in contents.items():
        for number in range(entries):
            seconds, fraction = divmod(number, 1000)
            minutes, seconds = divmod(seconds, 60)
            name = f"20261101T{minutes // 60:02}{minutes % 60:02}{seconds:02}.{fraction:03}000000Z-{number:08x}"
            with Path(path, directory, name).open("xb") as file:
                _ = file.write(content)
