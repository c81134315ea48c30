"""Text from outside, for people to look at: without what a terminal would obey or a log would take for a new line."""

from __future__ import annotations

import unicodedata
from typing import Final

_OBEYED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""The categories of control characters, and of format characters (which can turn the direction of writing)."""


def encodable(text: str) -> str:
    r"""Return text that UTF-8, and so JSON, can hold: lone surrogates are shown as `\udc80` and the like.

    They are in what `os.listdir` returns of a file whose name is not UTF-8.
    """
    return text.encode(errors="backslashreplace").decode()


def printable(text: str, keep: str = "") -> str:
    r"""Return text without characters that would be obeyed: they are shown as `\x1b` and the like."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _OBEYED and character not in keep
        else character
        for character in text
    )
