"""Measure: `python -m bench [CASE…]` in the folder `benchmarks`; `nox -s bench -- CASE…` installs the peers before.

Writes what it measured to a JSON file, prints it as tables, and draws plots of it. As root it makes a fresh file system
for each measurement; others give directories, as in `--on ext4=/path`.
"""

from __future__ import annotations

import argparse
import itertools
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
    _ = parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help=f"of {', '.join(cases)}, or how several begin: postgresql; all, if none is given",
    )
    _ = parser.add_argument("--rounds", type=int, help="rounds of each (5)")
    _ = parser.add_argument("--places", default=",".join(PLACES), help="file systems to measure on (%(default)s)")
    _ = parser.add_argument("--on", action="append", default=[], metavar="PLACE=DIRECTORY", help="use this directory")
    _ = parser.add_argument("--images", default=tempfile.gettempdir(), help="make images in here (%(default)s)")
    _ = parser.add_argument("--scale", type=float, help="do so much of everything, to try it out (1)")
    _ = parser.add_argument("--quick", action="store_true", help="for a look: two rounds of a fifth of everything")
    _ = parser.add_argument("--output", type=Path, default=HERE / "results" / "latest.json", help="(%(default)s)")
    _ = parser.add_argument("--add", action="store_true", help="keep what the output has of other cases")
    _ = parser.add_argument("--plots", type=Path, help="draw plots in this directory; needs matplotlib")
    _ = parser.add_argument("--only-show", action="store_true", help="measure nothing: show what the output has")
    arguments = parser.parse_args()
    names = {word: [name for name in cases if name == word or name.startswith(f"{word}-")] for word in arguments.cases}
    unknown = [word for word, found in names.items() if not found]
    if unknown:
        parser.error(f"there is no case {unknown[0]}; there are {', '.join(cases)}")
    rounds, scale = (2, 0.2) if arguments.quick else (5, 1.0)
    rounds = rounds if arguments.rounds is None else arguments.rounds
    scale = scale if arguments.scale is None else arguments.scale
    places = arguments.places.split(",")
    if not set(places) <= set(PLACES):
        parser.error(f"--places takes some of {','.join(PLACES)}")
    given = dict(one.partition("=")[::2] for one in arguments.on)
    if not set(given) <= set(PLACES) or not all(Path(directory).is_dir() for directory in given.values()):
        parser.error(f"--on takes one of {', '.join(PLACES)}, and a directory that is there: --on ext4=/path")
    if rounds < 1:
        parser.error("--rounds takes a number from 1")

    if not arguments.only_show:
        chosen = Cases(scale).all
        settings = (
            setting
            for name in dict.fromkeys(itertools.chain(*names.values())) or chosen
            for setting in chosen[name]()
            if setting.place in places
        )
        earlier = load(arguments.output) if arguments.add and arguments.output.exists() else None
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        for report in run(settings, rounds, Places(arguments.images, given), tell):
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
