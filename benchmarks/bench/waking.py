"""One round of `waking.py`, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.crew import HERE, environment


def waking(folder: str, backend: str, level: str, entries: int) -> dict[str, float]:
    """Return the median and the 99th percentile in milliseconds, and the share of a CPU that waiting takes."""
    command = [sys.executable, str(HERE / "waking.py"), "--directory", folder, "--backend", backend]
    command += ["--level", level, "--rounds", "1", "--samples", "1", "--entries", str(entries), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    return json.loads(done.stdout)
