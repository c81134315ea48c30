"""Time the commands that look at a spool, and measure their memory, on a queue of very many entries.

The entries are laid out as `docs/on-disk-format.md` says, without the library, because only looking is measured. On
tmpfs, so that it measures the command and not a disk.

    python benchmarks/large_queue.py --directory /dev/shm --entries 1000000
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common import machine

COMMANDS = (["ls"], ["ls", "--ages"], ["ls", "many", "--long"], ["stats"], ["fsck"])

MEASURED = """
import re, runpy, sys, time
started = time.perf_counter()
try:
    runpy.run_module("trio_multispool", run_name="__main__")
finally:
    peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]
    print(f"measured {time.perf_counter() - started} {peak}", file=sys.stderr)
"""


def main() -> None:
    """Fill a spool, run each command, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _ = parser.add_argument("--directory", default="/dev/shm", help="where the spool is made (default: %(default)s)")
    _ = parser.add_argument("--entries", type=int, default=1_000_000, help="how many (default: %(default)s)")
    options = parser.parse_args()
    print(machine(options.directory))
    print(f"{options.entries:,} entries in one queue")
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory, "spool")
        _ = subprocess.run([sys.executable, "-m", "trio_multispool", "create", path, "many"], check=True)
        fill(path, options.entries)
        for words in COMMANDS:
            print(f"{' '.join(words):16}{measured(path, words)}", flush=True)


def fill(path: Path, entries: int) -> None:
    """Make so many entries with metadata of two bytes, and no data."""
    for number in range(entries):
        name = f"{number:08}"
        for directory in (".registry", ".data", "many"):
            with (path / directory / name).open("wb") as file:
                if directory == "many":
                    _ = file.write(b"{}")


def measured(path: Path, words: list[str]) -> str:
    """Run a command on the spool, and say how long it ran and how much memory it had at most."""
    command = [sys.executable, "-c", MEASURED, words[0], os.fspath(path), *words[1:]]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, text=True)
    found = re.search(r"measured (\S+) (\d+)", done.stderr)
    if done.returncode or found is None:
        return f"failed: {done.stderr}"
    return f"{float(found[1]):6.1f} s  {int(found[2]) / 1024:5.0f} MB"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
