"""Every kind of damage that a monitor names, planted behind the library's back on one entry, or beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trio_multispool.monitor import (
    Abandoned,
    Dir,
    Duplicated,
    ForeignFile,
    Kind,
    Misdated,
    MissingData,
    MissingReservation,
    Orphaned,
    TooOld,
    Undecodable,
    UnreadableNotes,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio_multispool.monitor import Problem

QUEUE, OTHER, OUT, ASIDE = (
    Dir(Kind.QUEUE, "failed"),
    Dir(Kind.QUEUE, "parked"),
    Dir(Kind.CHECKOUT, "failed"),
    Dir(Kind.QUARANTINE, "failed"),
)
WAITING = Dir(Kind.WAITING, "failed")
DATA, NOTES, REMEMBERED, REGISTRY, TEMPORARY = map(
    Dir, (Kind.DATA, Kind.NOTES, Kind.REMEMBERED, Kind.REGISTRY, Kind.TEMPORARY)
)
LONG_AGO = 1_000_000_000


def _old(file: Path) -> None:
    file.write_bytes(b"half of it")
    os.utime(file, (LONG_AGO, LONG_AGO))


def _note(path: Path) -> None:
    (path / ".notes").mkdir(exist_ok=True)
    (path / ".notes" / "stray").touch()


def _beside(file: Path, content: bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)


def _move(path: Path, name: str, to: str) -> None:
    (path / to).mkdir(parents=True, exist_ok=True)
    os.rename(path / "failed" / name, path / to / name)


def _copy(path: Path, name: str, to: str) -> None:
    (path / to).mkdir(parents=True, exist_ok=True)
    (path / to / name).write_bytes((path / "failed" / name).read_bytes())


DAMAGE: dict[str, tuple[Callable[[Path, str], object], Callable[[str], list[Problem]]]] = {
    "abandoned": (lambda p, n: _move(p, n, "failed/.checkout"), lambda n: [Abandoned(n, OUT)]),
    "data is gone": (lambda p, n: (p / ".data" / n).unlink(), lambda n: [MissingData(n, QUEUE)]),
    "reservation is gone": (lambda p, n: (p / ".registry" / n).unlink(), lambda n: [MissingReservation(n, QUEUE)]),
    "metadata is garbage": (lambda p, n: (p / "failed" / n).write_text("{"), lambda n: [Undecodable(n, QUEUE)]),
    "metadata is empty": (lambda p, n: (p / "failed" / n).write_text(""), lambda n: [Undecodable(n, QUEUE)]),
    "in two queues": (lambda p, n: _copy(p, n, "parked"), lambda n: [Duplicated(n, QUEUE, (QUEUE, OTHER))]),
    "checked out as well": (
        lambda p, n: _copy(p, n, "failed/.checkout"),
        lambda n: [Duplicated(n, OUT, (OUT, QUEUE))],
    ),
    "in quarantine as well": (
        lambda p, n: _copy(p, n, ".quarantine/failed"),
        lambda n: [Duplicated(n, QUEUE, (QUEUE, ASIDE))],
    ),
    "notes are garbage": (
        lambda p, n: _beside(p / ".notes" / n, b'{"attempts": "\xff"}'),
        lambda n: [UnreadableNotes(n, NOTES)],
    ),
    "a remembered name is garbage": (
        lambda p, _: _beside(p / ".keys" / "gone", b'{"remember": "long"}'),
        lambda _: [UnreadableNotes("gone", REMEMBERED)],
    ),
    "a name that is to be remembered is garbage": (
        lambda p, n: _beside(p / ".keys" / n, b"["),
        lambda n: [UnreadableNotes(n, REMEMBERED)],
    ),
    "stray data": (lambda p, _: (p / ".data" / "stray").touch(), lambda _: [Orphaned("stray", DATA)]),
    "stray reservation": (lambda p, _: (p / ".registry" / "stray").touch(), lambda _: [Orphaned("stray", REGISTRY)]),
    "stray note": (lambda p, _: _note(p), lambda _: [Orphaned("stray", NOTES)]),
    "old temporary metadata": (lambda p, _: _old(p / ".tmp" / "x"), lambda _: [TooOld("x", TEMPORARY)]),
    "old temporary data": (lambda p, _: _old(p / ".tmp" / ".data.x"), lambda _: [TooOld(".data.x", TEMPORARY)]),
    "old temporary notes": (lambda p, _: _old(p / ".tmp" / ".notes.x"), lambda _: [TooOld(".notes.x", TEMPORARY)]),
    "waiting too long": (
        lambda p, n: os.utime(p / "failed" / n, (LONG_AGO, LONG_AGO)),
        lambda n: [TooOld(n, QUEUE)],
    ),
    "a due time lost in a copy": (
        lambda p, n: _copy(p, n, "failed/.waiting") or (p / "failed" / n).unlink(),
        lambda n: [Misdated(n, WAITING)],
    ),
    "a file at the top": (
        lambda p, _: (p / "README").touch(),
        lambda _: [ForeignFile("README", Dir(Kind.SPOOL), "a file")],
    ),
    "a hidden directory at the top": (
        lambda p, _: (p / ".git").mkdir(),
        lambda _: [ForeignFile(".git", Dir(Kind.SPOOL), "a directory")],
    ),
    "a hidden file in a queue": (
        lambda p, _: (p / "failed" / ".swp").touch(),
        lambda _: [ForeignFile(".swp", QUEUE, "no name: it starts with a dot")],
    ),
    "a symbolic link in a queue": (
        lambda p, _: (p / "failed" / "link").symlink_to("x"),
        lambda _: [ForeignFile("link", QUEUE, "a symbolic link")],
    ),
    "a FIFO among the check-outs": (
        lambda p, _: os.mkfifo(p / "failed" / ".checkout" / "fifo"),
        lambda _: [ForeignFile("fifo", OUT, "a FIFO")],
    ),
    "a directory in the data": (
        lambda p, _: (p / ".data" / "more").mkdir(),
        lambda _: [ForeignFile("more", DATA, "a directory")],
    ),
    "a directory among temporary files": (
        lambda p, _: (p / ".tmp" / "more").mkdir(),
        lambda _: [ForeignFile("more", TEMPORARY, "a directory")],
    ),
}
"""By name: how to plant it in a spool, whose queue `failed` has an entry of that name; and the problems that it is."""
