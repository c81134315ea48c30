"""Measure: `python -m bench [CASE…]` in the folder `benchmarks`; `nox -s bench -- CASE…` installs the peers before.

Writes what it measured to a JSON file, prints it as tables, and draws plots of it. As root it makes a fresh file system
for each measurement; others give directories, as in `--on ext4=/path`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.cases import Cases
from bench.places import PLACES, Places
from bench.report import load, save
from bench.runner import run
from bench.tables import tables

HERE = Path(__file__).parent.parent


def main() -> None:
    """Read the command line, and measure."""
    cases = Cases().all
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__.partition("\n")[0])
    _ = parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(cases)}; all, if none is given")
    _ = parser.add_argument("--rounds", type=int, default=5, help="rounds of each (%(default)s)")
    _ = parser.add_argument("--places", default=",".join(PLACES), help="file systems to measure on (%(default)s)")
    _ = parser.add_argument("--on", action="append", default=[], metavar="PLACE=DIRECTORY", help="use this directory")
    _ = parser.add_argument("--images", default=tempfile.gettempdir(), help="make images in here (%(default)s)")
    _ = parser.add_argument("--scale", type=float, default=1, help="do so much of everything, to try it out (1)")
    _ = parser.add_argument("--output", type=Path, default=HERE / "results" / "latest.json", help="(%(default)s)")
    _ = parser.add_argument("--add", action="store_true", help="keep what the output has of other cases")
    _ = parser.add_argument("--plots", type=Path, help="draw plots in this directory; needs matplotlib")
    _ = parser.add_argument("--only-show", action="store_true", help="measure nothing: show what the output has")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.cases if name not in cases]
    if unknown:
        parser.error(f"there is no case {unknown[0]}; there are {', '.join(cases)}")
    places = arguments.places.split(",")
    if not set(places) <= set(PLACES):
        parser.error(f"--places takes some of {','.join(PLACES)}")
    given = dict(one.partition("=")[::2] for one in arguments.on)
    if not set(given) <= set(PLACES) or not all(Path(directory).is_dir() for directory in given.values()):
        parser.error(f"--on takes one of {', '.join(PLACES)}, and a directory that is there: --on ext4=/path")
    if arguments.rounds < 1:
        parser.error("--rounds takes a number from 1")

    if not arguments.only_show:
        chosen = Cases(arguments.scale).all
        settings = (
            setting for name in arguments.cases or chosen for setting in chosen[name]() if setting.place in places
        )
        earlier = load(arguments.output) if arguments.add and arguments.output.exists() else None
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        for report in run(settings, arguments.rounds, Places(arguments.images, given), tell):
            save(arguments.output, report if earlier is None else earlier.merged(report))
    report = load(arguments.output)
    print(tables(report))
    if arguments.plots:
        from bench.plots import draw  # noqa: PLC0415  # the only one that needs matplotlib

        for path in draw(report, arguments.plots):
            tell(f"drawn: {path}")


def tell(line: str) -> None:
    """Say how it goes, where it is in nobody's way."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
