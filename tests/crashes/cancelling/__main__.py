"""The command: `python -m cancelling --loop trio --seed 1`, with `tests/` and `tests/crashes/` on the path."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
import time
from pathlib import Path

from cancelling.rounds import LOOPS, Storm
from helpers.children import quick_directory


def main() -> int:
    """Let the storm rage, and print what it did; fail if there is a fault."""
    parser = argparse.ArgumentParser(prog="cancelling", description="Cancel what uses a spool at random, and judge it.")
    parser.add_argument("--loop", choices=LOOPS, default="trio", help="what runs the tasks (default: trio)")
    parser.add_argument("--rounds", type=int, default=100, help="how many (default: 100)")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 1_000_000, help="of the first round; then counted up"
    )
    parser.add_argument(
        "--patience", type=float, default=60, help="how long a round may take, in seconds (default: 60)"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been ignored by who started this
    logging.disable()  # the library tells of each attempt that fails, as many are made to
    with tempfile.TemporaryDirectory(prefix="cancelling-") as otherwise, quick_directory(Path(otherwise)) as directory:
        storm = Storm(directory, options.loop, options.patience)
        for seed in range(options.seed, options.seed + options.rounds):
            faults = storm.rage(seed)
            if faults:
                print(f"python -m cancelling --loop {options.loop} --seed {seed} --rounds 1")
                print(*faults, sep="\n")
                return 1
    for line in storm.summary():
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
