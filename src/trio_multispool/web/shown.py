"""What programs have written, as a person is shown it: as text only, and what a browser would obey made visible. Pure.

Nothing here returns HTML but `visible` and `lines`, and they escape all of it. A picture is one by its first bytes
alone, and only of kinds that hold no script.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from markupsafe import Markup

from trio_multispool.looks.metadata import for_person, is_json
from trio_multispool.model.text import encodable, printable

if TYPE_CHECKING:
    from collections.abc import Collection

LONGEST: Final = 64 * 1024
"""How much of a text is shown, in characters; and of data in hexadecimal, a sixteenth of that in bytes."""

LARGEST_JSON: Final = 1024 * 1024
"""In bytes; what is larger is not taken apart, and so not shown as JSON."""

HIDDEN: Final = "(hidden)"
"""What is shown instead of the value of a field that is redacted."""

_PER_LINE: Final = 16
_SHORT: Final = 160

_PICTURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


class Withheld(Exception):
    """It cannot be shown without what is to be hidden."""


def visible(text: object) -> Markup:
    """Return a text of any origin for a line of a page: escaped, and with nothing that turns the text around it."""
    return Markup("<bdi>{}</bdi>").format(printable(encodable(str(text))))


def lines(text: str) -> Markup:
    """Return a text of several lines likewise, for an element that keeps them."""
    return Markup("<bdi>{}</bdi>").format(printable(encodable(text), keep="\n\t"))


def clip(text: str, most: int = LONGEST) -> tuple[str, bool]:
    """Return as much of a text as is shown, and whether that is not all."""
    return text[:most], len(text) > most


def picture_type(first: bytes) -> str | None:
    """Return the media type of a picture, by its first bytes; `None`: it is none that is shown."""
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _PICTURES if first.startswith(magic)), None)


def in_hex(raw: bytes) -> str:
    """Return bytes in hexadecimal, sixteen on a line, with the letters among them."""
    told: list[str] = []
    for at in range(0, len(raw), _PER_LINE):
        part = raw[at : at + _PER_LINE]
        letters = "".join(chr(each) if 0x20 <= each < 0x7F else "." for each in part)  # noqa: PLR2004  # printable ASCII
        told.append(f"{at:08x}  {part.hex(' '):<{3 * _PER_LINE - 1}}  {letters}")
    return "\n".join(told)


def text_of(raw: bytes) -> str | None:
    """Return bytes as text, if they are; a character that is cut at the end is left out."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        cut = error.reason == "unexpected end of data"
        return raw[: error.start].decode() if cut else None


def redacted(raw: bytes, hidden: Collection[str]) -> bytes:
    """Return JSON without the values of these fields, however deep they are; raises `Withheld` for what is no JSON."""
    if not hidden:
        return raw
    if len(raw) > LARGEST_JSON:
        raise Withheld("it is too large to look for what is to be hidden in it")
    try:
        value = msgspec.json.decode(raw)
        return msgspec.json.encode(_without(value, frozenset(hidden)))
    except (ValueError, RecursionError):
        raise Withheld("it is no JSON, so what is to be hidden cannot be found in it") from None


def _without(value: object, hidden: frozenset[str]) -> object:
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {key: HIDDEN if key in hidden else _without(each, hidden) for key, each in members.items()}
    if isinstance(value, list):
        return [_without(each, hidden) for each in cast("list[object]", value)]
    return value


def metadata_text(raw: bytes, hidden: Collection[str]) -> str:
    """Return metadata over several lines, without what is to be hidden."""
    try:
        return for_person(redacted(raw, hidden), terminal=False).decode(errors="backslashreplace")
    except Withheld as why:
        return f"({why})"


def metadata_line(raw: bytes, hidden: Collection[str]) -> str:
    """Return the beginning of metadata, on one line: of an object, its fields."""
    try:
        shown = redacted(raw, hidden)
    except Withheld as why:
        return f"({why})"
    if len(shown) <= LARGEST_JSON and is_json(shown):
        value = msgspec.json.decode(shown)
        if isinstance(value, dict):
            fields = cast("dict[str, object]", value)
            parts = (f"{key}: {_short(each)}" for key, each in fields.items())
            return clip_line(", ".join(parts))
        return clip_line(_short(value))
    return clip_line(shown[: 4 * _SHORT].decode(errors="backslashreplace"))


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def clip_line(text: str, most: int = _SHORT) -> str:
    """Return a text of so many characters at most; what is cut is shown by dots."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
