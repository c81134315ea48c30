"""How long importing takes what the library needs, without it and with it: in new processes, without their start.

With what it needs, because the library by itself does not import Trio, which every program that runs on Trio does.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from bench.probes import run

NEEDED = "trio, anyio, msgspec"
TIMED = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def measure(_folder: str, *, times: int) -> dict[str, float]:
    """Take the median of so many, in milliseconds, of each in turn."""
    took: dict[str, list[float]] = {f"{NEEDED}, trio_multispool": [], NEEDED: []}
    for _ in range(times):
        for modules, each in took.items():
            command = [sys.executable, "-c", TIMED.format(modules)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            each.append(float(done.stdout) * 1000)
    return {modules: statistics.median(each) for modules, each in took.items()}


if __name__ == "__main__":
    run(measure)
