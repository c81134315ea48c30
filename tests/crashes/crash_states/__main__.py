"""`python -m crash_states`, in `tests/`: the table of all cases, in Markdown; with `syncs`, what each sync is good for.

Without the longer cases unless `all` is said.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crash_states import cases, company
from crash_states.enumeration import MODELS
from crash_states.playing import syncs_of, theatre

if TYPE_CHECKING:
    from crash_states.cases import Case
    from crash_states.playing import Theatre


def _row(*cells: object) -> None:
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def _table(stage: Theatre, played: dict[str, Case]) -> None:
    _row("case", *(f"{model}: states | bad" for model in MODELS))
    _row("---", *["---"] * (2 * len(MODELS)))
    states = bad = 0
    for name, case in played.items():
        tallies = stage.play(case)
        _row(name, *(f"{tally.states} | {len(tally.bad)}" for tally in tallies.values()))
        states += sum(tally.states for tally in tallies.values())
        bad += sum(len(tally.bad) for tally in tallies.values())
    print(f"\n{states} states, {bad} bad")


def _syncs(stage: Theatre, played: dict[str, Case]) -> None:
    _row("case", "without", *(f"{model}: bad" for model in MODELS))
    _row("---", "---", *["---"] * len(MODELS))
    for name, case in played.items():
        for scene in stage.scenes(case):
            for number, words in syncs_of(scene):
                _row(name, words, *stage.without(scene, {number}).values())


def main(words: list[str]) -> None:
    """Print it."""
    played = cases.CASES | company.CASES | (company.MORE if "all" in words else {})
    with tempfile.TemporaryDirectory() as otherwise, theatre(Path(otherwise)) as stage:
        if "syncs" in words:
            _syncs(
                stage,
                {name: case for name, case in cases.CASES.items() if name in cases.OPERATIONS or "together: " in name},
            )
        else:
            _table(stage, played)


if __name__ == "__main__":
    main(sys.argv[1:])
