"""Data in memory, read as data in a file are."""

from __future__ import annotations

import io
from typing import Any, BinaryIO


def as_file(data: bytes) -> BinaryIO:
    """Return a file to read. Unlike `BytesIO`, it is at its end once `hashlib.file_digest` has read it, for example."""
    raw: Any = io.BytesIO(data)
    return io.BufferedReader(raw)
