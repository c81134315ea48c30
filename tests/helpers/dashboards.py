"""A spool that has something of everything, for the pages of the dashboard; made by the library alone, on any store."""

from __future__ import annotations

import contextlib
import enum
import struct
import zlib
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from trio_multispool import Durability, GiveUp, Remove, Retry, Save, Spool, Spoolable, Use, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from helpers.spools import Location
    from trio_multispool import CheckedOutEntry, DataFile


class Photos(enum.Enum):
    """The queues."""

    UPLOADED = "uploaded"
    RESIZE = "resize"
    PUBLISH = "publish"
    FAILED = "failed"


class Photo(msgspec.Struct):
    """The metadata."""

    title: str
    owner: str
    width: int = 4032
    secret: str = "hunter2"


PHOTOS = Spoolable(queues=Photos, metadata=Photo, data=bytes)
ANYTHING = Spoolable(queues=Photos, metadata=dict[str, Any], data=bytes)
RAW: Spoolable[Photos, bytes, bytes] = Spoolable(queues=Photos, metadata=bytes, data=bytes)

OWNERS = ("anne", "bert", "chloé", "dagny", "emil")
TITLES = (
    "harbour at dawn",
    "the old mill",
    "snow on the pier",
    "market day",
    "a heron",
    "lighthouse",
    "after the rain",
)

RETRY = Retry(dead_letter=Photos.FAILED, attempts=1)


class Unsupported(Exception):
    """A handler cannot read a picture."""


def picture(width: int = 96, height: int = 64) -> bytes:
    """Return a small PNG: a sky over a sea."""
    rows = b""
    for y in range(height):
        rows += b"\0"
        for x in range(width):
            sea = y > height * 0.62
            rows += bytes((20 + x // 4, 90 + y, 140 + y // 2)) if sea else bytes((240 - y, 170 - y // 2, 110 + x))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def photo(number: int) -> Photo:
    """Return metadata, a little different each time."""
    return Photo(f"{TITLES[number % len(TITLES)]} ({number})", OWNERS[number % len(OWNERS)], 2048 + 64 * (number % 30))


def name_of(kind: str, number: int) -> str:
    """Return the name of an entry."""
    return f"{kind}-{number:04}"


def _read(_photo: Photo) -> NoReturn:
    raise Unsupported("cannot read a picture of this kind: HEIC")


async def _fail(photo: Photo, data: DataFile[bytes]) -> Verdict[Photos, Photo]:
    """Fail in one of several ways."""
    number = int(data.name.rpartition("-")[2])
    if number % 7 == 0:
        return GiveUp("the owner has closed the account")
    if number % 3 == 0:
        raise TimeoutError("storage.example did not answer within 30 seconds")
    _read(photo)


async def furnish(place: Location, *, ready: int = 60) -> None:
    """Make the spool: what is ready, what waits, dead letters of three kinds, and something in quarantine."""
    spool = (await Spool.create(place, PHOTOS, durability=Durability.PROCESS)).unwrap()
    async with spool:
        for queue, kind, number in ((Photos.UPLOADED, "up", ready), (Photos.PUBLISH, "pub", max(1, ready // 5))):
            names = [Use(name_of(kind, each)) for each in range(number)]
            items = [(photo(each), picture() if each % 2 else b'{"exif": {"iso": 200}}') for each in range(number)]
            for answer in await spool.enqueue_many(queue, items, names=names):
                _ = answer.unwrap()
        for each in range(6):
            use = Use(name_of("later", each))
            _ = (
                await spool.enqueue(Photos.PUBLISH, photo(each), b"", name=use, not_before=600.0 * (each + 1))
            ).unwrap()
        for each in range(12):
            _ = (await spool.enqueue(Photos.RESIZE, photo(each), b"data", name=Use(name_of("res", each)))).unwrap()
        async with spool.reader(Photos.RESIZE) as reader:
            (await reader.iter_available(_fail, retry=RETRY)).unwrap()
    bad = (await Spool.load(place, RAW, durability=Durability.PROCESS)).unwrap()
    async with bad:
        for each in range(3):
            use = Use(name_of("bad", each))
            _ = (await bad.enqueue(Photos.RESIZE, b'{"title": ["' + str(each).encode(), b"?", name=use)).unwrap()
    spool = (await Spool.load(place, PHOTOS, durability=Durability.PROCESS)).unwrap()
    async with spool, spool.reader(Photos.RESIZE) as reader:
        (await reader.iter_available(_remove)).unwrap()


async def _remove(_photo: Photo, _data: DataFile[bytes]) -> Verdict[Photos, Photo]:
    return Remove()


@contextlib.asynccontextmanager
async def holding(
    place: Location, number: int = 3
) -> AsyncIterator[list[CheckedOutEntry[Photos, Photo, bytes, Spool[Photos, Photo, bytes]]]]:
    """Have some of what was uploaded in hand while the block runs, each with some progress."""
    async with contextlib.AsyncExitStack() as stack:
        spool = await stack.enter_async_context((await Spool.load(place, PHOTOS)).unwrap())
        jobs = []
        for each in range(number):
            entry = spool.entry(Photos.UPLOADED, name_of("up", each)).unwrap()
            job = await stack.enter_async_context((await entry.checkout()).unwrap())
            _ = await job.progress((each + 1) / (number + 1), f"resizing, step {each + 1}")
            jobs.append(job)
        yield jobs


__all__ = ["PHOTOS", "Photo", "Photos", "Save", "furnish", "holding", "name_of", "picture"]
