"""What the scripts here share: the spool that they fill, and what their figures were measured on."""

from __future__ import annotations

import enum
import os
import platform
import statistics
import subprocess
from importlib.metadata import version

import msgspec

from trio_multispool import Spoolable

DATA = b"x" * 1024


class Queue(enum.Enum):
    """The queues."""

    WORK = "work"
    DEAD = "dead"


class Note(msgspec.Struct):
    """The metadata."""

    number: int


NOTES = Spoolable(queues=Queue, metadata=Note, data=bytes)


def described(rates: list[float]) -> str:
    """Show the median and the spread."""
    return f"{statistics.median(rates):8,.0f}  ({min(rates):,.0f} to {max(rates):,.0f})"


def file_system(directory: str) -> str:
    """Name the file system, as `df` does."""
    command = ["df", "--output=fstype", directory]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()[-1]


def machine(directory: str) -> str:
    """Tell, in two lines, the versions, the machine and what else it does, and the file system."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("trio", "anyio"))
    return (
        f"Python {platform.python_version()}, {versions}, {platform.system()} {platform.release()}\n"
        f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}, {directory} on {file_system(directory)}"
    )
