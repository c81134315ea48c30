"""Where the systems work: a fresh file system for each measurement.

An image on a loop device, made and mounted as root, is new each time: a file system that has seen many deletions makes
files more slowly (ext4 passes over recently deleted inodes), and one without a journal syncs for nothing. A directory
that is given for a place is used as it is.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SIZE = "8G"
MAKERS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-O", "has_journal"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
PLACES = ("tmpfs", *MAKERS)


class Places:
    """Makes folders on the places that are asked for."""

    def __init__(self, images: str, directories: Mapping[str, str]) -> None:
        """Keep images in one directory; use given directories for some places."""
        self._images, self._directories = images, directories

    def missing(self, place: str) -> str | None:
        """Tell why nothing can be measured on a place, if so."""
        if place in self._directories:
            return None
        if os.geteuid() != 0:
            return f"only root can mount {place}; give a directory on one with --on {place}=DIRECTORY"
        tool = MAKERS.get(place, ["mount"])[0]
        if subprocess.run(["which", tool], capture_output=True, check=False).returncode:
            return f"there is no {tool}"
        return None

    @contextlib.contextmanager
    def fresh(self, place: str) -> Iterator[str]:
        """Make a new file system, and remove it at the end."""
        if place in self._directories:
            with tempfile.TemporaryDirectory(dir=self._directories[place], prefix="bench-") as folder:
                yield folder
            return
        with tempfile.TemporaryDirectory(dir=self._images, prefix="bench-") as scratch:
            mount = Path(scratch, "mount")
            mount.mkdir()
            if place == "tmpfs":
                _run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(mount))
            else:
                image = Path(scratch, "image")
                _run("truncate", "-s", SIZE, str(image))
                _run(*MAKERS[place], str(image))
                _run("mount", "-o", "loop", str(image), str(mount))
            try:
                yield str(mount)
            finally:
                _run("umount", str(mount))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
