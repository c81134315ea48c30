"""The operations with nothing in their way, on each file system: the suite's own tests of the store, with spools there.

tmpfs and overlayfs keep nothing through power loss, or not by themselves; they have to work all the same.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from filesystems.devices import make, mounted, run, unmount
from filesystems.kinds import KINDS
from filesystems.report import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[2]

MODULES = (
    "storage/test_storage_protocol.py",
    "storage/test_ownership.py",
    "entries/test_settle_together.py",
    "threads/test_threads_and_fork.py",
)
"""Every operation, alone, against other owners in this process and in others, and after their death."""

LINES = 60
"""How much of pytest's output is shown when a test fails: its end, with the summary."""


def use(name: str, scratch: Path) -> Tally:
    """Run them on a new file system of that name."""
    directory = scratch / "mounted"
    directory.mkdir(exist_ok=True)
    report = scratch / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["-o", "tmp_path_retention_policy=none"]  # small disks
    with _mounted(name, scratch, directory):
        arguments = [f"--basetemp={directory / 'tests'}", *(os.fspath(TESTS / module) for module in MODULES)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, cwd=TESTS.parent)
    suite = ElementTree.parse(report).getroot()[0]
    bad = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    skipped = int(suite.attrib["skipped"])
    if bad or done.returncode != 0:
        print("\n".join(done.stdout.splitlines()[-LINES:]), done.stderr, sep="\n")
    run_at_all = int(suite.attrib["tests"]) - skipped
    return Tally(name, images=run_at_all, distinct=run_at_all, bad=bad, notes=f"{skipped} skipped")


@contextlib.contextmanager
def _mounted(name: str, scratch: Path, directory: Path) -> Iterator[None]:
    if name in KINDS:
        kind = KINDS[name]
        make(kind, scratch / "device.img")
        with mounted(kind, scratch / "device.img", directory):
            yield
        return
    options = "mode=700"
    if name == "overlay":
        layers = {layer: scratch / layer for layer in ("lowerdir", "upperdir", "workdir")}
        for layer in layers.values():
            layer.mkdir()
        options = ",".join(f"{layer}={path}" for layer, path in layers.items())
    run("mount", "-t", name, "-o", options, "none", os.fspath(directory))
    try:
        yield
    finally:
        unmount(directory)
