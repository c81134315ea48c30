"""Runs the rounds: in each, everything of a setting has its turn, on a file system of its own."""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bench import servers
from bench.report import Key, Report, Series
from bench.systems import SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from bench.places import Places
    from bench.setting import Setting


def run(settings: Iterable[Setting], rounds: int, places: Places, tell: Callable[[str], None]) -> Iterator[Report]:
    """Measure all settings, so many rounds each; tell how it goes; after each setting, yield what there is."""
    report = Report(datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"), machine())
    for setting in settings:
        missing = places.missing(setting.place) or (servers.missing() if setting.is_served else None)
        if missing is not None:
            tell(f"{setting.case} is left out on {setting.place}: {missing}")
            continue
        values: dict[Key, list[float]] = {}
        with _grounds(setting, places) as fresh:
            for number in range(rounds):
                for label, measure in setting.trials.items():
                    tell(f"{setting.case}, {setting.place}, {setting.level}, round {number + 1} of {rounds}: {label}")
                    with fresh() as folder:
                        measured = measure(folder)
                    for what, value in measured.items():
                        key = Key(setting.case, setting.place, setting.level, label, what, setting.size)
                        values.setdefault(key, []).append(value)
        report.series += [Series(key, setting.unit_of(key.what), found) for key, found in values.items()]
        yield report


@contextlib.contextmanager
def _grounds(setting: Setting, places: Places) -> Iterator[Callable[[], AbstractContextManager[str]]]:
    """Yield what makes a new file system, or a new database of one server."""
    if setting.is_served:
        with servers.databases(places, setting.place) as fresh:
            yield fresh
    else:
        yield functools.partial(places.fresh, setting.place)


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
