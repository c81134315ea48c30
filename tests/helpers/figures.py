"""Figures of the proofs: tests count them, the end of a run tells them, and the page on reliability keeps them.

A figure counts for the state that it is of: so each row names the
last commit that changed the library, and the date, and rows of earlier states say that they are older.
"""

from __future__ import annotations

import collections
import datetime
import enum
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "reliability.md"
IS_ASKED_FOR = bool(os.environ.get("TRIO_MULTISPOOL_RECORD"))
"""Whether figures of whole proofs go into the page, and are not only told."""

OLDER = "older: "


class Proof(enum.StrEnum):
    """The proofs that have figures, each by the first words of its row in the page."""

    AFTER_A_KILL = "the same; then every other operation"
    EVERY_ERRNO = "every system call fails"
    STOPPED_OWNERS = "SIGSTOP before every system call"
    INTERLEAVINGS = "interleavings of two and three owners"
    CRASH_STATES = "power loss: every state"
    SNAPSHOTS = "power loss on real ext4"
    REPLAY = "the same, from the device's own log"
    FULL_DISK = "real ENOSPC"
    FAILING_DISK = "real EIO"
    STORM = "a storm of kills"
    STORM_ON_A_SERVER = "such a storm over a spool on a server"
    LOST_CONNECTIONS = "a connection to the server is lost"
    SILENCE = "a server falls silent"
    TERMINATED = "sessions on the server are ended"
    RESTARTED = "the server restarts"
    FAILED_OVER = "a standby takes over"
    HOSTS = "hosts are cut off, or die"
    FULL_SERVER = "the server has no room"
    WORKERS_OF_A_SERVER = "workers of a server are killed or stopped"
    TWO_VERSIONS = "tables are brought up to date"
    CANCELLING = "a storm of cancellations"
    MODEL = "the protocol as a model"
    MUTANTS = "mutants of the model"


def add_up(counted: Iterable[tuple[Proof, Mapping[str, int]]]) -> dict[Proof, dict[str, int]]:
    """Add up what was counted for each proof."""
    sums: dict[Proof, dict[str, int]] = collections.defaultdict(lambda: collections.defaultdict(int))
    for proof, numbers in counted:
        for what, number in numbers.items():
            sums[proof][what] += number
    return sums


def tell(proof: Proof, how_many: str, bad: int, *, whole: bool = True) -> str:
    """Return the figures of a proof in a line, after recording them if that is asked for and nothing was left out."""
    if IS_ASKED_FOR and whole:
        record(proof, how_many, bad)
    return f"{proof.value}: {how_many}; {bad} bad"


def in_words(numbers: Mapping[str, int]) -> str:
    """Say numbers by their names: `calls=3` is `3 calls`. What was bad is told elsewhere."""
    return ", ".join(f"{number:,} {what.replace('_', ' ')}" for what, number in numbers.items() if what != "bad")


def record(proof: Proof, how_many: str, bad: int, *, project: Path = PROJECT) -> None:
    """Write the figures of a proof into its row of the page, and say of all rows which are of an older state.

    Raises `RuntimeError` if the library or its tests have changed since the last commit: then nobody could tell of
    which state the figure is.
    """
    if _git(project, "status", "--porcelain", "--", "src", "tests"):
        raise RuntimeError("a figure is of a commit: commit what has changed in src/ and tests/ first")
    page, state = project / PAGE.relative_to(PROJECT), _git(project, "log", "-1", "--format=%h", "--", "src")
    today = datetime.datetime.now(datetime.UTC).date()
    lines = page.read_text().splitlines()
    [row] = [number for number, line in enumerate(lines) if line.startswith(f"| {proof.value}")]
    what, *_, command = _cells(lines[row])
    lines[row] = f"| {what} | {how_many} | {bad} | {state}, {today} | {command} |"
    page.write_text("".join(f"{_marked(line, state)}\n" for line in lines))


def _marked(line: str, state: str) -> str:
    cells = _cells(line)
    if len(cells) != len(("faults", "how many", "bad", "commit", "run it")) or not cells[3][-1:].isdigit():
        return line
    of = cells[3].removeprefix(OLDER)
    cells[3] = of if of.startswith(f"{state},") else OLDER + of
    return f"| {' | '.join(cells)} |"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _git(project: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True)
    return done.stdout.strip()
