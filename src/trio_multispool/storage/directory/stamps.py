"""Time stamps of files: what they say, and how they are set."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os


def written_at(found: os.stat_result) -> float:
    """Return when a file was last written, in seconds since 1970, as far as can be known.

    If the entry waits, or has waited, the modification time is when it is due. No file was written after its last
    change.
    """
    return min(found.st_mtime, found.st_ctime)
