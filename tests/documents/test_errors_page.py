"""docs/errors.md has a section for each error, and none for anything else."""

from __future__ import annotations

import re
from pathlib import Path

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
