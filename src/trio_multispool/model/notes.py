"""Notes about an entry, beside its metadata: one small JSON object, with a key for each purpose.

No rule of an entry's life depends on notes, and notes that cannot be read are ignored. To change a key, keep the others
as they are, also those that a later version added.
"""

from __future__ import annotations

from typing import Final, final

import msgspec

PROGRESS: Final = "progress"
"""The key under which an owner reports its progress. Settling the entry deletes it."""

LONGEST_MESSAGE: Final = 200
"""In characters. A longer one is cut, because it is shown on one line."""


@final
class Progress(msgspec.Struct, frozen=True):
    """An owner's progress with an entry, as it reported it."""

    done: float
    """From 0 to 1."""
    message: str
    """What the owner is doing, on one line; may be empty."""
    at: float
    """When it reported this, in seconds since 1970."""


def decode_notes(raw: bytes) -> dict[str, msgspec.Raw]:
    """Return the notes by key, with undecoded values; empty if they cannot be read."""
    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return {}


def encode_notes(notes: dict[str, msgspec.Raw]) -> bytes:
    """Return the notes as bytes."""
    return msgspec.json.encode(notes) + b"\n"


def encode_progress(done: float, message: str, at: float) -> bytes:
    """Return the value of the key; raises `ValueError` if `done` is not from 0 to 1."""
    if not 0 <= done <= 1:
        raise ValueError(f"progress is a number from 0 to 1, not {done!r}")
    line = " ".join(message.split())
    shown = line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"
    return msgspec.json.encode(Progress(done, shown, at))


def progress_in(notes: dict[str, msgspec.Raw]) -> Progress | None:
    """Return the progress in the notes, or `None` if it is missing or cannot be read."""
    try:
        return msgspec.json.decode(notes[PROGRESS], type=Progress) if PROGRESS in notes else None
    except msgspec.DecodeError:
        return None
