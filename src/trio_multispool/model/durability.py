"""How much an acknowledged operation survives."""

from __future__ import annotations

import enum


class Durability(enum.Enum):
    """What an `Ok` promises: a spool has a level, and a call may ask for another.

    In a spool of level `POWER`, a call with `durability=Durability.PROCESS` leaves out only its own last sync: power
    loss may then undo *that* call, never an earlier one that was acknowledged, and never tear an entry.
    """

    POWER = "power"
    """Survives power loss and crashes of the kernel: everything is synced before `Ok` is returned. The default."""

    PROCESS = "process"
    """Survives any crash of processes, `kill -9` included; nothing is synced, so power loss may undo it."""
