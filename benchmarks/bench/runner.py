"""Runs the rounds: in each, everything of a setting has its turn, on a file system of its own."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import Key, Report, Series
from bench.systems import SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bench.cases import Setting
    from bench.places import Places


def run(settings: Iterable[Setting], rounds: int, places: Places, tell: Callable[[str], None]) -> Iterator[Report]:
    """Measure all settings, so many rounds each; tell how it goes; after each setting, yield what there is."""
    report = Report(datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"), machine())
    for setting in settings:
        missing = places.missing(setting.place)
        if missing is not None:
            tell(f"{setting.case} is left out on {setting.place}: {missing}")
            continue
        values: dict[Key, list[float]] = {}
        for number in range(rounds):
            for label, measure in setting.trials.items():
                tell(f"{setting.case}, {setting.place}, {setting.level}, round {number + 1} of {rounds}: {label}")
                with places.fresh(setting.place) as folder:
                    measured = measure(folder)
                for what, value in measured.items():
                    key = Key(setting.case, setting.place, setting.level, label, what, setting.size)
                    values.setdefault(key, []).append(value)
        report.series += [Series(key, setting.unit_of(key.what), found) for key, found in values.items()]
        yield report


def machine() -> dict[str, str]:
    """Tell what figures depend on."""
    found = {
        "python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()}",
        "processors": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    peers = [system.distribution for system in SYSTEMS.values() if system.distribution]
    for distribution in ("trio-multispool", "trio", "anyio", "msgspec", *peers):
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    of_the_library = ["git", "log", "-1", "--format=%h", "--", "src"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # not from a clone: then nobody knows
        done = subprocess.run(of_the_library, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
        found["commit"] = done.stdout.strip()
    return found
