"""The figures in the page on reliability: whose they are, and of which state of the library."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import figures
from helpers.figures import Proof

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """
| faults | how many | bad | commit, date | run it |
|---|---|---|---|---|
| a storm of kills | 3 kills | 0 | 1234567, 2026-01-01 | `nox -s storm` |
| a storm of cancellations | 5 kills | 0 | older: before 2026-01-01 | `nox -s storm` |
| forks | 11 tests | 0 | at every change | `nox -s tests` |

As `kills | forks` say.
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with a page, and a library that is committed."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    for name, text in (("docs/reliability.md", PAGE), ("src/library.py", "1"), ("tests/test_it.py", "1")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    commit(tmp_path)
    return tmp_path


def git(project: Path, *words: str) -> str:
    """Run git."""
    return subprocess.run(["git", *words], cwd=project, check=True, capture_output=True, text=True).stdout


def commit(project: Path) -> None:
    """Commit what git knows of."""
    git(project, "-c", "user.name=Anne", "-c", "user.email=anne@example.org", "commit", "-am", "more")


def rows(project: Path) -> dict[str, list[str]]:
    """Return what the page says, by the first cell of each row."""
    lines = (project / "docs/reliability.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {what: told for what, *told in cells}


def test_a_figure_stands_with_the_commit_and_the_date_and_those_of_other_commits_are_older(project):
    """Also of one that was recorded when the library was another; what runs at every change is never old."""
    figures.record(Proof.STORM, "4 kills", 1, project=project)
    told = rows(project)
    first = git(project, "log", "-1", "--format=%h").strip()
    assert re.fullmatch(rf"{first}, \d{{4}}-\d\d-\d\d", told[Proof.STORM][2])
    assert (told[Proof.STORM][:2], told[Proof.STORM][3]) == (["4 kills", "1"], "`nox -s storm`")
    assert told[Proof.CANCELLING][2] == "older: before 2026-01-01"
    assert told["forks"][2] == "at every change"
    (project / "docs/other.md").write_text("a page does not change the library")
    git(project, "add", ".")
    commit(project)
    figures.record(Proof.CANCELLING, "6 kills", 0, project=project)
    assert [rows(project)[what][2].partition(",")[0] for what in (Proof.STORM, Proof.CANCELLING)] == [first, first]
    (project / "src/library.py").write_text("2")
    commit(project)
    figures.record(Proof.CANCELLING, "7 kills", 0, project=project)
    assert rows(project)[Proof.STORM][2].startswith(f"older: {first}, ")
    assert not rows(project)[Proof.CANCELLING][2].startswith(("older", first))
    assert (project / "docs/reliability.md").read_text().endswith("\n\nAs `kills | forks` say.\n")


@pytest.mark.parametrize("file", ["src/library.py", "src/new.py", "tests/test_it.py"])
def test_no_figure_is_recorded_of_what_is_not_committed(project, file):
    """Nobody could do it again."""
    (project / file).write_text("3")
    with pytest.raises(RuntimeError, match="commit what has changed"):
        figures.record(Proof.STORM, "4 kills", 0, project=project)
    assert rows(project)[Proof.STORM][0] == "3 kills"


def test_every_proof_has_its_row_in_the_page():
    """By the row's first words; all other rows are of what runs at every change."""
    counted = [
        what for what, told in rows(figures.PROJECT).items() if told[2] not in ("at every change", "commit, date")
    ]
    assert [[what for what in counted if what.startswith(proof)] for proof in Proof] == [[what] for what in counted]


def test_figures_add_up_whoever_counted_them():
    """Tests of one proof run in several processes."""
    storm, model = Proof.STORM, Proof.MODEL
    counted = [(storm, {"kills": 1500, "bad": 0}), (model, {"states": 1}), (storm, {"kills": 2, "bad": 1})]
    sums = figures.add_up(counted)
    assert figures.in_words(sums[storm]) == "1,502 kills"
    assert sums[storm]["bad"] == 1
    assert figures.in_words({"follow_ups": 3, "trees": 2}) == "3 follow ups, 2 trees"
