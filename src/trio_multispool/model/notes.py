"""Notes about an entry, beside its metadata: one small JSON object, with a key for each purpose.

No rule of an entry's life depends on notes. Notes that cannot be read count as none, and so does a key of them. To
change a key, keep the others as they are, also those that a later version added.

Any program, or a bad disk, may have written what lies beside entries. `decode_beside` is the one way to read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, final

import msgspec

from trio_multispool.model.text import encodable

if TYPE_CHECKING:
    from trio_multispool.model.types import T

PROGRESS: Final = "progress"
"""The key under which an owner reports its progress. Settling the entry deletes it."""

LONGEST_MESSAGE: Final = 200
"""In characters. A longer one is cut, because it is shown on one line."""

LARGEST: Final = 4 * 1024 * 1024
"""In bytes. Nothing larger is read. What is written here stays below it."""

DEEPEST: Final = 32
"""How deep arrays and objects may lie in each other. The notes of this version go to eight."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
"""A number that can be counted up, and written as JSON."""

_ALL_BUT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_AS_ONE_KIND: Final = bytes.maketrans(b"[]", b"{}")


def decode_beside(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Decode JSON that lies beside entries. Raises a `ValueError`, and nothing else, if it cannot be read."""
    raw = bytes(raw)
    if len(raw) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and _is_deep(raw):
        raise ValueError(f"it is malformed, or nested deeper than {DEEPEST} levels")
    return msgspec.json.decode(raw, type=kind)


def _is_deep(raw: bytes) -> bool:
    """Tell whether it is nested too deep, without recursion: take the innermost brackets away, again and again."""
    quotes_and_brackets = raw.replace(rb"\\", b"").replace(rb"\"", b"").translate(_AS_ONE_KIND, _ALL_BUT_STRUCTURE)
    brackets = b"".join(quotes_and_brackets.replace(b'""', b"").split(b'"')[::2])
    for _ in range(DEEPEST):
        brackets = brackets.replace(b"{}", b"")
    return bool(brackets)


@final
class Progress(msgspec.Struct, frozen=True):
    """An owner's progress with an entry, as it reported it."""

    done: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """From 0 to 1."""
    message: str
    """What the owner is doing, on one line; may be empty."""
    at: float
    """When it reported this, in seconds since 1970."""


def decode_notes(raw: bytes) -> dict[str, msgspec.Raw]:
    """Return the notes by key, with undecoded values. Raises a `ValueError` if they cannot be read."""
    return decode_beside(raw, dict[str, msgspec.Raw])


def decode_key(notes: dict[str, msgspec.Raw], key: str, kind: type[T]) -> T | None:
    """Return the value of a key, or `None` if it is missing or cannot be read."""
    try:
        return decode_beside(notes[key], kind) if key in notes else None
    except ValueError:
        return None


def encode_notes(notes: dict[str, msgspec.Raw]) -> bytes:
    """Return the notes as bytes."""
    return msgspec.json.encode(notes) + b"\n"


def encode_progress(done: float, message: str, at: float) -> bytes:
    """Return the value of the key; raises `ValueError` if `done` is not from 0 to 1."""
    if not 0 <= done <= 1:
        raise ValueError(f"progress is a number from 0 to 1, not {done!r}")
    line = " ".join(encodable(message).split())
    shown = line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"
    return msgspec.json.encode(Progress(done, shown, at))


def progress_in(notes: dict[str, msgspec.Raw]) -> Progress | None:
    """Return the progress in the notes, or `None` if it is missing or cannot be read."""
    return decode_key(notes, PROGRESS, Progress)
