"""Pages with whole programs on them: they are written to files and typed, and show what the page shows."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

from helpers.pages import PROJECT, files, type_out

pytestmark = pytest.mark.page

OTHERS = {"tutorial": "test_tutorial.py", "comparison": "test_comparison.py"}
"""Pages that need more than to be typed, and who sees to them."""
PAGES = [
    pytest.param(page, marks=pytest.mark.sample if page.stem == "coming-from-memory" else ())
    for page in sorted(PROJECT.glob("docs/**/*.md"))
    if files(page) and page.stem not in OTHERS
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_whoever_types_what_a_page_says_sees_what_it_shows(page, tmp_path):
    """Each program, ours and theirs, is a process of its own."""
    assert type_out(page, tmp_path) > 0


VERSIONS = {
    "coming-from-huey": {"huey": "huey"},
    "coming-from-celery": {"Celery": "celery", "kombu": "kombu"},
    "coming-from-rq": {"RQ": "rq", "`fakeredis`": "fakeredis"},
    "coming-from-persist-queue": {"persist-queue": "persist-queue"},
}
"""What pages call the others, and the packages that are installed."""


@pytest.mark.parametrize("page", VERSIONS)
def test_a_page_names_the_series_that_its_programs_were_run_with(page):
    """Of each other library, to the second number."""
    text = (PROJECT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for name, package in VERSIONS[page].items():
        told = re.findall(rf"{name}\s(\d+\.\d+)\.\d+", text)
        assert set(told) == {".".join(version(package).split(".")[:2])}, name


def test_our_side_is_the_same_beside_each_task_queue():
    """Whoever compares three of them sees one program of ours."""
    ours = {files(PROJECT / "docs" / f"coming-from-{other}.md")["here.py"] for other in ("huey", "celery", "rq")}
    assert len(ours) == 1


def test_a_page_that_shows_something_else_is_noticed(tmp_path):
    """A program that prints another line, or ends with an error, is not what the page shows."""
    page = tmp_path / "page.md"
    program = "`hello.py`:\n\n```python\nprint('Hello')\n```\n\n```console\n$ python hello.py\n{}```\n"
    page.write_text(program.format("…\nHel…\n"))
    assert type_out(page, tmp_path) == 1
    for wrong in ("", "Hallo\n", "Hello\nHello\n"):
        page.write_text(program.format(wrong))
        with pytest.raises(AssertionError, match="where the page shows"):
            type_out(page, tmp_path)
