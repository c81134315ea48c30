"""ARCHITECTURE.md says what is so: its table of rooms comes from the tree, and the files that it names are there."""

from __future__ import annotations

import re

import pytest

from helpers.rooms import PACKAGE, PAGE, PROJECT, layers, stands, table

PATHS = sorted(set(re.findall(r"`((?:src/trio_multispool/|tests/|docs/)?[\w/]+\.(?:py|md))`", PAGE.read_text())))


def test_the_table_of_rooms_is_current():
    """Each package and public module has its row, in the order of the layers, with its own words and files."""
    assert stands() == table(), "run `python tests/helpers/rooms.py`, and look at what it changed"


def test_every_package_and_module_at_the_top_is_in_a_layer():
    """import-linter's contract leaves out nothing, so that the table does not either."""
    tops = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert {room for layer in layers() for room in layer} == {top for top in tops if not top.startswith("__")}


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_the_page_names_is_there(path: str):
    """What it says where to make which change leads somewhere."""
    assert (PROJECT / path).is_file() or (PACKAGE / path).is_file()
