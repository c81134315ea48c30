"""Check a spool: find what is stuck, lost, doubled or left over, tell when it starts and ends, and repair it."""

from __future__ import annotations

from trio_multispool.monitor.episodes import End, Event, Start, Watching
from trio_multispool.monitor.limits import Limits
from trio_multispool.monitor.monitor import Monitor
from trio_multispool.monitor.problems import (
    Abandoned,
    Duplicated,
    ForeignFile,
    Misdated,
    MissingData,
    MissingReservation,
    Orphaned,
    Problem,
    TooOld,
    Undecodable,
    Unreadable,
    UnreadableNotes,
)
from trio_multispool.monitor.repairs import Action, Repair
from trio_multispool.storage.findings import Dir, Kind

__all__ = [
    "Abandoned",
    "Action",
    "Dir",
    "Duplicated",
    "End",
    "Event",
    "ForeignFile",
    "Kind",
    "Limits",
    "Misdated",
    "MissingData",
    "MissingReservation",
    "Monitor",
    "Orphaned",
    "Problem",
    "Repair",
    "Start",
    "TooOld",
    "Undecodable",
    "Unreadable",
    "UnreadableNotes",
    "Watching",
]
