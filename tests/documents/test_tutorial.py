"""The tutorial: whoever types what it says sees what it shows. Two real shells, and every block of the page."""

from __future__ import annotations

import pytest

from helpers.pages import PROJECT, Known, files, pieces, type_out

PAGE = PROJECT / "docs" / "tutorial.md"


def test_every_block_is_of_a_kind_that_is_run():
    """But for the one that installs, which is what made this environment."""
    found = pieces(PAGE)
    assert {piece.language for piece in found} == {"sh", "python", "console"}
    assert [piece for piece in found if piece.language == "sh"] == found[:1]
    assert list(files(PAGE)) == ["mail.py", "send.py", "worker.py"]
    assert sum(piece.language == "python" for piece in found) == 3
    assert PAGE.read_text("utf-8").count("\n```") == 2 * len(found)


@pytest.mark.page
def test_whoever_types_it_sees_what_it_shows(tmp_path):
    """Files are made, commands are run, and the worker's lines come, in the page's order."""
    assert type_out(PAGE, tmp_path) >= 16


@pytest.mark.parametrize("seen", ["nothing", "20261130T055829.819942597Z-50ad19c5 is", ""])
def test_a_line_that_is_not_what_the_page_shows_fails(seen):
    """The check can fail."""
    with pytest.raises(AssertionError):
        Known().check(["20261130T055829.819942597Z-50ad19c5 is on disk"], [seen])


def test_a_name_that_the_page_shows_twice_is_the_same_twice():
    """Whether its lines are seen together or one after the other."""
    name, other = "20261130T055829.819942597Z-50ad19c5", "20261130T055833.759142535Z-980bd2ea"
    known = Known()
    known.check([name, f"{name} …"], [other, f"{other} is there"])
    assert known == {name: other}
    for lines in ([name, name], [name]):
        with pytest.raises(AssertionError):
            Known(known if len(lines) == 1 else {}).check(lines, [other, name][-len(lines) :])
