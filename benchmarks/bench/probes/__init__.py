"""What is measured of this library alone: modules with a function `measure(folder, **options)`, run in a new process.

It returns values by what they are: microseconds, megabytes, or whatever the case that asks for them says.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from bench.crew import environment


def probed(name: str, folder: str, **options: float) -> dict[str, float]:
    """Run a probe in a process of its own."""
    command = [sys.executable, "-m", f"bench.probes.{name}", folder, json.dumps(options)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    return json.loads(done.stdout)


def run(measure) -> None:  # noqa: ANN001  # any function that takes a folder and options
    """Be that process."""
    print(json.dumps(measure(sys.argv[1], **json.loads(sys.argv[2]))))


def memory() -> float:
    """Return how many megabytes this process had at most."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
