"""What was measured, as it is kept in a file, and the ratios between what was measured in the same round."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path


class Key(msgspec.Struct, frozen=True):
    """What a row of values is of."""

    case: str
    place: str
    level: str
    label: str
    what: str
    size: int = 1024


class Series(msgspec.Struct, frozen=True):
    """One value a round."""

    key: Key
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)


class Report(msgspec.Struct):
    """A run of the benchmark."""

    began: str
    machine: dict[str, str]
    series: list[Series] = []

    def find(self, key: Key) -> Series | None:
        """Return what was measured of something, if it was."""
        return next((one for one in self.series if one.key == key), None)

    def ratio(self, of: Key, to: Key | None) -> list[float] | None:
        """Return the ratio of two rows, round by round; the values themselves, if `to` is nothing."""
        mine, other = self.find(of), None if to is None else self.find(to)
        if mine is None or (to is not None and other is None):
            return None
        if other is None:
            return mine.values
        return [a / b for a, b in zip(mine.values, other.values, strict=True)]

    def merged(self, later: Report) -> Report:
        """Return a report in which what was measured later takes the place of the same of before."""
        fresh = {one.key for one in later.series}
        kept = [one for one in self.series if one.key not in fresh]
        return Report(later.began, later.machine, kept + later.series)


def load(path: Path) -> Report:
    """Read a report; raise a `ValueError` that names the file, if it is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is no report of a benchmark: {error}") from error


def save(path: Path, report: Report) -> None:
    """Write a report."""
    rounded = [Series(one.key, one.unit, [float(f"{value:.5g}") for value in one.values]) for one in report.series]
    encoded = msgspec.json.encode(Report(report.began, report.machine, rounded))
    _ = path.write_bytes(msgspec.json.format(encoded, indent=1) + b"\n")
