"""The command: `python -m storm --minutes 10`, with `tests/` on the path; `nox -s storm` sets that up."""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import figures
from helpers.children import quick_directory
from helpers.postgresql_servers import Server
from storm.controlling import Storm

if TYPE_CHECKING:
    from helpers.spools import Location


def main() -> int:
    """Let the storm rage, and print what it did; fail if there is a fault."""
    parser = argparse.ArgumentParser(prog="storm", description="Kill workers of a spool at random, and judge it.")
    parser.add_argument("--minutes", type=float, help="how long (default: 1, unless --kills is given)")
    parser.add_argument("--kills", type=int, help="how many kills at least, whatever time they take")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of when whom is killed")
    parser.add_argument("--workers", type=int, default=6, help="how many processes (default: 6)")
    parser.add_argument("--directory", type=Path, help="where to make a new directory (default: in memory)")
    parser.add_argument("--url", help="of a PostgreSQL server: make the spool there, and remove it at the end")
    options = parser.parse_args()
    logging.disable()  # the library tells of each attempt that fails, as many are made to
    print(f"storm --seed {options.seed}", flush=True)
    if options.directory is not None:
        with tempfile.TemporaryDirectory(dir=options.directory, prefix="storm-") as directory:
            return rage(Path(directory), options)
    with tempfile.TemporaryDirectory(prefix="storm-") as otherwise, quick_directory(Path(otherwise)) as directory:
        return rage(directory, options)


def rage(directory: Path, options: argparse.Namespace) -> int:
    """Do it in a directory, or on a server."""
    if options.url is None:
        return rage_at(directory / "spool", directory, options)
    server = Server(options.url, "the server that was given")
    spool = f"storm_{secrets.token_hex(4)}"
    try:
        return rage_at(server.url(spool), directory, options)
    finally:
        server.drop(spool)


def rage_at(place: Location, directory: Path, options: argparse.Namespace) -> int:
    """Do it with a spool there, and with records in a directory."""
    storm = Storm(place, directory, options.seed, options.workers)
    minutes = 1.0 if options.minutes is None and options.kills is None else options.minutes
    end = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    kills = float("inf") if options.kills is None else options.kills
    storm.rage(lambda: time.monotonic() < end and (storm.kills < kills or not storm.has_tried_all()))
    verdict = storm.judge()
    for line in storm.summary(verdict):
        print(line)
    counts = {
        "kills": storm.kills,
        "stops": storm.stops,
        "operations_acknowledged": verdict.acknowledged.total(),
        "workers": options.workers,
    }
    faults = len(verdict.faults)
    proof = figures.Proof.STORM if options.url is None else figures.Proof.STORM_ON_A_SERVER
    print(figures.tell(proof, figures.in_words(counts), faults, whole=options.minutes is not None))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
