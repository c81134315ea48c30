"""Check the model of ownership with spin: the right model must pass, and each of its mutants must fail.

    nox -s model [-- --quick]

What is promised is told in `ownership.pml`, and the mutants are a table in `README.md`. The right model's searches are
exhaustive: one that was cut short (by its depth, or by memory) is a failure, whatever it found until then. So is a
place in the right model where a process can get stuck, and a statement that no process ever reaches.

Needs `spin` and `gcc`. Works in a temporary directory; exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from helpers import figures

HERE: Final = Path(__file__).parent
MODEL: Final = "ownership.pml"
MOST_MEGABYTES: Final = 8000
ALL_OF_IT: Final = ("-m5000000", "-w25")
"""How deep the search may go (several times what the largest size below needs), and the size of its hash table."""
FIRST_ERROR: Final = ("-m100000", "-w20")


class Sizes(NamedTuple):
    """How much there is of everything; see `disk.pml`."""

    processes: int
    entries: int
    saves: int
    losses: int
    waits: int
    keys: int

    def defines(self) -> list[str]:
        """Return them as arguments for spin."""
        return [f"-D{name.upper()}={value}" for name, value in self._asdict().items()]


# Each has more of something; all of it together would be too much.
QUICK: Final = (Sizes(2, 2, 1, 0, 1, 0), Sizes(2, 1, 1, 1, 1, 1))
FULL: Final = (
    Sizes(2, 3, 2, 1, 0, 0),
    Sizes(3, 1, 1, 1, 0, 0),
    Sizes(3, 2, 1, 0, 0, 0),
    Sizes(3, 1, 1, 0, 1, 0),
    Sizes(2, 2, 1, 1, 1, 1),
)


class Mutant(NamedTuple):
    """A row of the table in `README.md`."""

    define: str
    rule: str
    sizes: Sizes


class Outcome(NamedTuple):
    """What a search has found."""

    states: int
    errors: int
    exhaustive: bool
    unreached: frozenset[str]
    seconds: float
    """Of one core, whatever else runs on it."""
    megabytes: float
    violation: str


def mutants() -> list[Mutant]:
    """Read the table of mutants."""
    rows = re.findall(r"^\| `(MUTANT_\w+)` \| (.+) \| ([\d ]+) \|$", (HERE / "README.md").read_text(), re.MULTILINE)
    return [Mutant(define, rule, Sizes(*map(int, sizes.split()))) for define, rule, sizes in rows]


def find(tool: str, package: str) -> str:
    """Return the path of a program, or end with what to install."""
    found = shutil.which(tool)
    if found is None:
        sys.exit(f"{tool} is not installed; on Debian and Ubuntu: apt install {package}")
    return found


def search(sizes: Sizes, mutant: str | None = None) -> Outcome:
    """Have spin try everything, of the right model or of a mutant."""
    spin, compiler = find("spin", "spin"), find("gcc", "gcc")
    defines = [*sizes.defines(), *([] if mutant is None else [f"-D{mutant}"])]
    with tempfile.TemporaryDirectory() as scratch:
        for source in HERE.glob("*.pml"):
            _ = shutil.copy(source, scratch)
        run(scratch, spin, "-a", *defines, MODEL)
        # A mutant fails within moments: there it is the compiler that takes the time.
        optimise = "-O2" if mutant is None else "-O0"
        limits = ["-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MOST_MEGABYTES}"]
        run(scratch, compiler, "-w", optimise, *limits, "-o", "pan", "pan.c")
        begun = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        report = run(scratch, "./pan", *(ALL_OF_IT if mutant is None else FIRST_ERROR))
        return read(report, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begun)


def run(directory: str, *command: str) -> str:
    """Return what a command prints; end with it if the command fails."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def read(report: str, seconds: float) -> Outcome:
    """Make sense of what the search prints."""

    def number(pattern: str) -> float:
        found = re.search(pattern, report, re.MULTILINE)
        if found is None:
            sys.exit(f"the search did not come to an end:\n{report}")
        return float(found[1])

    cut_short = re.search(r"max search depth too small|Search not completed", report)
    violation = re.search(r"^pan:\d+: (.*?)(?: \(at depth \d+\))?$", report, re.MULTILINE)
    unreached = re.findall(r"^\s+(\w+[.]pml:\d+, state \d+, .+)$", report, re.MULTILINE)
    return Outcome(
        states=int(number(r"^\s*([\d.e+]+) states, stored")),
        errors=int(number(r"errors: (\d+)")),
        exhaustive=cut_short is None,
        unreached=frozenset(unreached),
        seconds=seconds,
        megabytes=number(r"([\d.]+)\s+total actual memory usage"),
        violation="" if violation is None else violation[1],
    )


def main() -> int:
    """Run it all and print it; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    _ = parser.add_argument("--quick", action="store_true", help="smaller sizes of the right model")
    quick = bool(parser.parse_args().quick)
    print(f"{'the right model':60} {'states':>12} {'errors':>6} {'s':>6} {'MB':>6}")
    idle: set[str] | None = None
    bad: list[bool] = []
    states = 0
    for sizes in QUICK if quick else FULL:
        found = search(sizes)
        states += found.states
        bad.append(not right_model_passes(sizes, found))
        idle = set(found.unreached) if idle is None else idle & found.unreached
    unreached = sorted(each for each in idle or () if "-end-" not in each)
    bad += [True for _ in unreached]
    for each in unreached:
        print(f"  ERROR: never reached in any of these sizes: {each}")
    print(f"\n{'mutants':60} {'states':>12} {'s':>6}  violated")
    missed = [not mutant_fails(mutant) for mutant in mutants()]
    print(f"\n{len(bad) + len(missed)} searches, {sum(bad) + sum(missed)} not as they should be")
    if not quick:
        print(figures.tell(figures.Proof.MODEL, f"{states:,} states, in {len(FULL)} sizes", sum(bad)))
        print(figures.tell(figures.Proof.MUTANTS, f"{len(missed)}, all caught" if not any(missed) else "", sum(missed)))
    return int(any(bad + missed))


def right_model_passes(sizes: Sizes, found: Outcome) -> bool:
    """Print what was found of one size, and tell whether nothing is wrong."""
    name = ", ".join(f"{value} {name}" for name, value in sizes._asdict().items())
    print(f"{name:60} {found.states:12,} {found.errors:6} {found.seconds:6.0f} {found.megabytes:6.0f}", flush=True)
    if found.errors:
        print(f"  ERROR: {found.violation}")
    if not found.exhaustive:
        print("  ERROR: the search was cut short")
    return found.errors == 0 and found.exhaustive


def mutant_fails(mutant: Mutant) -> bool:
    """Check one mutant, print it, and tell whether it was caught."""
    found = search(mutant.sizes, mutant.define)
    name = mutant.define.removeprefix("MUTANT_").replace("_", " ").lower()
    # By a promise of the model, which has a name: an error such as an invalid array index would be one of the mutant's.
    promise = re.fullmatch(r"assertion violated (\w+)", found.violation)
    end = promise[1].replace("_", " ") if promise is not None else f"ERROR: it survived {found.violation}"
    print(f"{name:60} {found.states:12,} {found.seconds:6.1f}  {end}", flush=True)
    return promise is not None


if __name__ == "__main__":
    sys.exit(main())
