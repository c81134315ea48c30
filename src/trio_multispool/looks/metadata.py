"""Metadata as a person is shown them."""

from typing import Final

import msgspec

from trio_multispool.model.text import printable

_INDENT: Final = 2


def is_json(raw: bytes) -> bool:
    """Tell whether these bytes are one JSON value."""
    try:
        msgspec.json.decode(raw)
    except (ValueError, RecursionError):  # what is nested too deeply to be read is no JSON here
        return False
    return True


def for_person(raw: bytes, *, terminal: bool) -> bytes:
    """Return metadata to look at: JSON over several lines, anything else as it is.

    For a terminal, without what it would obey.
    """
    shown = msgspec.json.format(raw, indent=_INDENT) if is_json(raw) else raw
    if terminal:
        shown = printable(shown.decode("utf-8", "backslashreplace"), keep="\n\t").encode()
    return shown
