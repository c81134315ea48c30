"""`.spool.json`: says that every user of the spool takes locks, and by which version of the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import msgspec

from trio_multispool.errors import NotARegularFile, UnsupportedFormat
from trio_multispool.model.notes import Count, decode_beside
from trio_multispool.storage.directory.disk.files import read_beside
from trio_multispool.storage.directory.disk.layout import FORMAT_FILE

if TYPE_CHECKING:
    from trio_multispool.storage.directory.disk.layout import Layout

FORMAT: Final = 1
_CURE: Final = f'if the file is damaged, put {{"format": {FORMAT}}} into it again; if not, upgrade'


@final
class _Description(msgspec.Struct):
    """The content of `.spool.json`; keys that a later version adds are ignored."""

    format: Count


def describe_format() -> bytes:
    """Return the content for `.spool.json`."""
    return msgspec.json.encode(_Description(FORMAT)) + b"\n"


def read_format(layout: Layout) -> bool:
    """Tell whether there is a `.spool.json`.

    Raises `UnsupportedFormat` if this version does not know its format, or if it is no such description at all.
    """
    try:
        found = decode_beside(read_beside(layout, "", FORMAT_FILE), _Description).format
    except FileNotFoundError:
        return False
    except (ValueError, NotARegularFile) as error:
        raise UnsupportedFormat(layout.path, f"{FORMAT_FILE}: {error}", _CURE) from error
    if found != FORMAT:
        raise UnsupportedFormat(layout.path, f"format {found}")
    return True
