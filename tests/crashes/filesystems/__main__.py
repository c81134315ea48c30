"""Run the proofs on real file systems, and print what they came to: `python -m filesystems --help` tells how.

It ends with status 1 if any image was bad that should not be, and also if none was where some must be: a check that
cannot fail proves nothing.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
import time
from typing import TYPE_CHECKING

from filesystems import failing, full, moods, plain, replay, report, snapshots, trouble
from filesystems.checking import Checker
from filesystems.devices import scratch
from filesystems.kinds import KINDS
from filesystems.needs import what_is_missing
from helpers import figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from filesystems.kinds import Kind
    from filesystems.report import Tally

MOST_IMAGES = 250
"""How many images are checked of one recorded history: enough for a choice, and the whole session keeps to minutes."""


ROWS = {
    "snapshots": (figures.Proof.SNAPSHOTS, "copies"),
    "replay": (figures.Proof.REPLAY, "images"),
    "full": (figures.Proof.FULL_DISK, "trials"),
    "failing": (figures.Proof.FAILING_DISK, "trials"),
}
"""The rows of proofs in the page on reliability, and what is counted there."""


class Session:
    """What was asked for, and whether all came out as it should."""

    def __init__(self, kinds: Sequence[Kind], seed: int, scratch: Path) -> None:
        """Begin."""
        self.kinds = kinds
        self.seed = seed
        self.scratch = scratch
        self.wrong = 0
        self._counted: list[tuple[figures.Proof, dict[str, int]]] = []
        self._proof = ""

    def run(self, proof: str) -> None:
        """Run one of the proofs."""
        self._proof = proof
        getattr(self, proof)()

    def figures(self) -> Iterator[str]:
        """Yield what the proofs came to, in lines."""
        for proof, numbers in figures.add_up(self._counted).items():
            yield figures.tell(proof, figures.in_words(numbers), numbers["bad"])

    def count(self, run: Callable[[], Tally], *, bad_is_expected: bool = False) -> None:
        """Run something, and print its line."""
        begun = time.monotonic()
        tally = run()
        expected = tally.images > 0 and (tally.bad > 0) == bad_is_expected
        self.wrong += not expected
        report.line(tally, time.monotonic() - begun, expected=expected)
        if self._proof in ROWS and not bad_is_expected:
            row, what = ROWS[self._proof]
            numbers = {what: tally.images, "of_them_different": tally.distinct, "bad": tally.bad}
            self._counted.append((row, numbers))

    def snapshots(self) -> None:
        """Copy the device after each call."""
        report.headline("Power lost at every system call: the device copied after each, and after each Ok")
        for kind in self.kinds:
            for mood in (moods.quiet(), moods.neighbour(self.seed), moods.committer(self.seed), moods.eager()):
                self.count(functools.partial(snapshots.run, kind, self.scratch, mood))
        report.headline("The same with syncs left out: some must be bad, or the check cannot fail")
        for kind in self.kinds:
            for omitted in (moods.SYNCS_OF_FILES, moods.SYNCS_OF_DIRECTORIES, moods.ALL_SYNCS):
                run = functools.partial(snapshots.run, kind, self.scratch, moods.quiet(), omitted=omitted)
                self.count(run, bad_is_expected=True)

    def replay(self) -> None:
        """Record the device's writes, and lose some."""
        report.headline(
            "Power lost with writes in the disk's cache: unflushed ones dropped, or overtaken by later ones"
        )
        for kind in self.kinds:
            checker = Checker(kind, self.scratch)
            for mood in (moods.neighbour(self.seed), moods.committer(self.seed), moods.quiet()):
                history = replay.record(kind, self.scratch, mood)
                check = functools.partial(replay.run, history, checker, seed=self.seed, most=MOST_IMAGES)
                self.count(functools.partial(check, f"{kind.name}, {mood.name}"))
            self.count(functools.partial(check, f"{kind.name}, a lying disk", lying=True), bad_is_expected=True)

    def plain(self) -> None:
        """Use every operation."""
        report.headline("The tests of the store, with the spools there", "tests", "run")
        for name in (*(kind.name for kind in self.kinds), "tmpfs", "overlay"):
            self.count(functools.partial(plain.use, name, self.scratch))

    def full(self) -> None:
        """Fill the disk."""
        self._in_trouble("A disk that is full: every operation, with a little more room each time", full.fill)

    def failing(self) -> None:
        """Let the disk fail."""
        self._in_trouble("A disk that fails (EIO), at another write each time", failing.fail)

    def _in_trouble(self, title: str, attempts: Callable[[Kind, Path], Iterator[Tally]]) -> None:
        report.headline(title, "trials", "answers")
        for kind in self.kinds:
            running = attempts(kind, self.scratch)
            for _ in trouble.OPERATIONS:
                self.count(functools.partial(next, running))


PROOFS = ("snapshots", "replay", "full", "failing", "plain")


def main() -> int:
    """Run."""
    missing = what_is_missing()
    if missing:
        print("this cannot run here:", *missing, sep="\n- ", file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(prog="python -m filesystems", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PROOFS, default=PROOFS)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.disable()  # the library tells of each failure that it survives, and here are hundreds
    print(f"seed {arguments.seed}")
    begun = time.monotonic()
    with scratch() as directory:
        session = Session([KINDS[name] for name in arguments.kinds], arguments.seed, directory)
        for proof in arguments.only:
            session.run(proof)
    print("", *session.figures(), f"{time.monotonic() - begun:.0f} s; {session.wrong} lines are wrong", sep="\n")
    return 1 if session.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
