"""Tell what has become worse: compare a report of the benchmark with a recorded one, and with what is to be reached.

    python benchmarks/compare.py [REPORT] [--baseline benchmarks/results/baseline.json] [--targets]

Fails (status 1) if a ratio is worse than in the baseline by more than the noise of both, or, with `--targets`, if one
is below what is asked for. What only one of the two has measured is left out. By hand, or nightly on a machine that has
nothing else to do; no test does it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from bench.report import load
from bench.targets import TARGETS, shortfalls

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Compare; return the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _ = parser.add_argument("report", nargs="?", type=Path, default=RESULTS / "latest.json", help="(%(default)s)")
    _ = parser.add_argument("--baseline", type=Path, default=RESULTS / "baseline.json", help="(%(default)s)")
    _ = parser.add_argument("--targets", action="store_true", help="fail too if one is below what is asked for")
    arguments = parser.parse_args()
    try:
        report, baseline = load(arguments.report), load(arguments.baseline)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    compared = 0
    missed = 0
    print(f"{'':66} {'baseline':>9} {'now':>9} {'asked for':>10}")
    for target in TARGETS:
        before, now = target.values(baseline), target.values(report)
        if now is None:
            continue
        compared += before is not None
        then = "" if before is None else f"{statistics.median(before):.3g}"
        median = statistics.median(now)
        met = target.met_by(median)
        missed += not met
        print(f"{target.name:66} {then:>9} {median:>9.3g} {target.least:>10g} {'' if met else 'missed'}")
    if not compared:
        parser.error(f"{arguments.report} and {arguments.baseline} have nothing in common")
    worse = list(shortfalls(baseline, report))
    for target, then, median, noise in worse:
        print(f"worse: {target.name}: {median:.3g}, where it was {then:.3g}, give or take {noise:.2g}")
    print(f"{compared} compared, {len(worse)} worse, {missed} short of what is asked for")
    return 1 if worse or (arguments.targets and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
