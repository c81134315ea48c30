"""What a case is made of: settings, in which several take turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

OWN = "trio-multispool"

Measure: TypeAlias = "Callable[[str], dict[str, float]]"
"""Given a folder on a fresh file system, or the URL of a fresh database, returns values by what they are."""


@dataclass(frozen=True)
class Setting:
    """What takes turns in the rounds of a case, on one place and at one level."""

    case: str
    place: str
    level: str
    trials: dict[str, Measure]
    """By label."""

    unit: str | dict[str, str] = "entries/s"
    """Of all values, or by what they are."""

    size: int = 1024

    is_served: bool = False
    """Whether all happens on a PostgreSQL server, whose data is on the place."""

    def unit_of(self, what: str) -> str:
        """Return the unit of a value."""
        return self.unit if isinstance(self.unit, str) else self.unit[what]


def label_of(system: str, tasks: int = 1, workers: int = 1) -> str:
    """Name what takes a turn."""
    parts = [system]
    if system == OWN:
        parts.append("1 task" if tasks == 1 else f"{tasks} tasks")
    if workers > 1:
        parts.append(f"{workers} processes")
    return ", ".join(parts)
