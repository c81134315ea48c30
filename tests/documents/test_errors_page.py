"""docs/errors.md has a section for each error, and none for anything else."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import re
from pathlib import Path

import pytest

from trio_multispool import SpoolError, errors

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text()


def test_every_error_has_a_section_and_every_section_is_an_error():
    """A reader who meets an error finds where it arises and what to do."""
    family = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, SpoolError)}
    sections = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    assert sorted(sections) == sorted(family - {"SpoolError"})


def test_every_section_says_where_the_error_arises():
    """Each names the operations that answer it."""
    for section in PAGE.split("\n### ")[1:]:
        assert re.search(r"\bFrom\s|you see it from", section), section.split("\n", 1)[0]


ROWS = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)


def test_every_error_has_a_row_that_says_what_to_do():
    """In the order of the sections, and linked to them."""
    sections = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    assert [(name, anchor) for name, anchor, _, _ in ROWS] == [(name, name.lower()) for name in sections]
    assert all(len(cure) > 40 for _, _, _, cure in ROWS)


@pytest.mark.parametrize(("name", "says"), [(name, says) for name, _, says, _ in ROWS])
def test_a_message_is_quoted_as_the_error_says_it(name, says):
    """So that whoever searches the page for it finds the row."""
    error = getattr(errors, name)
    required = [field.name for field in dataclasses.fields(error) if field.default is dataclasses.MISSING]
    fields = {name: FIELDS.get(name, "x") for name in required}
    for quoted in re.findall(r"`([^`]+)`", says):
        pattern = ".*".join(map(re.escape, quoted.split("…")))
        assert re.search(pattern, str(error(**fields)).replace("`", "")), str(error(**fields))


FIELDS: dict[str, object] = {
    "at": datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC),
    "committed": True,
    "errno": errno.EIO,
    "part": "metadata",
}
