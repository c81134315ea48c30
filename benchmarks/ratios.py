"""How the library stands beside the bare system calls, and beside SQLite, in one run.

    python benchmarks/ratios.py --directory DIRECTORY [--durability power|process] [--json FILE]

Each measurement is a process of its own, in a folder of its own; the systems take turns, A B C A B C, for several
rounds, and ratios are between measurements of the same round. Shown are the medians, the least and the most. The
library works with 1 task and with 64 of Trio's; the others are blocking loops, which have one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import bare
import sqlite
import trio
from common import machine
from throughput import measure as measure_spool

from trio_multispool import Durability

SYSTEMS = {"bare loop": 1, "SQLite": 1, "1 task": 1, "64 tasks": 64}
"""And how many tasks work at a time."""

Rates = tuple[float, float]


def measure(system: str, folder: str, durability: Durability, entries: int) -> Rates:
    """Measure one system once, in this process: entries per second enqueued, and checked out and removed."""
    sync = durability is Durability.POWER
    if system == "bare loop":
        return bare.measure(folder, entries, sync=sync)
    if system == "SQLite":
        return sqlite.measure(folder, entries, sync=sync)
    return trio.run(measure_spool, folder, durability, SYSTEMS[system], entries)


def measured(system: str, directory: str, durability: Durability, entries: int) -> Rates:
    """Measure one system once, in a process and a folder of its own."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="multispool-benchmark-") as folder:
        command = [sys.executable, __file__, "--directory", folder, "--durability", durability.value]
        ran = subprocess.run(
            [*command, "--entries", str(entries), "--only", system], check=True, stdout=subprocess.PIPE, text=True
        )
    enqueued, removed = json.loads(ran.stdout)
    return enqueued, removed


def described(values: list[float], digits: int) -> str:
    """Show the median and the spread."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def show(what: str, rates: dict[str, list[float]]) -> None:
    """Print a table of one kind of rate."""
    print(f"\n| {what} | per second | times the bare loop | times SQLite |\n|---|---|---|---|")
    for system, values in rates.items():
        ratios = [
            described([mine / its for mine, its in zip(values, rates[other], strict=True)], 2)
            for other in ("bare loop", "SQLite")
        ]
        print(f"| {system} | {described(values, 0)} | {ratios[0]} | {ratios[1]} |")


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description="Compare the library with the bare system calls and with SQLite.")
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="make the spools in here")
    parser.add_argument("--durability", choices=[level.value for level in Durability], default=Durability.POWER.value)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--entries", type=int, default=3000, help="entries for 64 tasks; a tenth for one (3000)")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    parser.add_argument("--only", choices=SYSTEMS, help=argparse.SUPPRESS)  # what this script starts itself with
    arguments = parser.parse_args()
    durability = Durability(arguments.durability)
    if arguments.only is not None:
        print(json.dumps(measure(arguments.only, arguments.directory, durability, arguments.entries)))
        return

    print(f"{machine(arguments.directory)}, durability {durability.value}, {arguments.rounds} rounds")
    rounds: dict[str, list[Rates]] = {system: [] for system in SYSTEMS}
    for _ in range(arguments.rounds):
        for system, tasks in SYSTEMS.items():
            entries = arguments.entries if tasks > 1 else max(arguments.entries // 10, 1)
            rounds[system].append(measured(system, arguments.directory, durability, entries))
    for number, what in enumerate(("enqueued", "checked out and removed")):
        show(what, {system: [rates[number] for rates in each] for system, each in rounds.items()})
    if arguments.json is not None:
        report = {"machine": machine(arguments.directory), "durability": durability.value, "rounds": rounds}
        _ = arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
