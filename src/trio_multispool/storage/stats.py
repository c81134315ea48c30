"""What is known about an entry or its data from the outside."""

from __future__ import annotations

import datetime
from typing import final

import msgspec


@final
class Stat(msgspec.Struct, frozen=True):
    """The size and age of an entry's metadata, or of its data."""

    size: int
    """In bytes, as stored."""

    modified_at: datetime.datetime
    """When it was last written, as an aware datetime in UTC. Moving an entry between queues does not change it."""
