"""What is kept about an entry beside its metadata: one small JSON object, with a key for each purpose.

No rule of an entry's life rests on it, and a note that cannot be read is none. Whoever changes a key keeps the others
as they are, also those that a later version has added.
"""

from __future__ import annotations

from typing import Final, final

import msgspec

PROGRESS: Final = "progress"
"""The key under which an owner tells how far it is; gone when the entry is settled."""

LONGEST_MESSAGE: Final = 200
"""In characters; what is longer is cut, for it is shown on one line."""


@final
class Progress(msgspec.Struct, frozen=True):
    """How far an owner says that it is with an entry."""

    done: float
    """From 0 to 1."""
    message: str
    """What it is doing, on one line; may be empty."""
    at: float
    """When it said so, in seconds since 1970."""


def decode_notes(raw: bytes) -> dict[str, msgspec.Raw]:
    """Return the keys of some notes, undecoded; none if they cannot be read."""
    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return {}


def encode_notes(notes: dict[str, msgspec.Raw]) -> bytes:
    """Return the bytes that stand for some notes."""
    return msgspec.json.encode(notes) + b"\n"


def encode_progress(done: float, message: str, at: float) -> bytes:
    """Return the value of the key; raises `ValueError` if `done` is not from 0 to 1."""
    if not 0 <= done <= 1:
        problem = f"progress is a number from 0 to 1, not {done!r}"
        raise ValueError(problem)
    line = " ".join(message.split())
    shown = line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"
    return msgspec.json.encode(Progress(done, shown, at))


def progress_in(notes: dict[str, msgspec.Raw]) -> Progress | None:
    """Return what the notes say about progress, if they do."""
    try:
        return msgspec.json.decode(notes[PROGRESS], type=Progress) if PROGRESS in notes else None
    except msgspec.DecodeError:
        return None
