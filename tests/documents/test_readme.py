"""The README and the documentation: what is shown runs, and prints what it says; what is linked is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from typing import NamedTuple, get_args

import pytest

import trio_multispool
from helpers.pages import BLOCK, PROJECT, lines_of_code
from trio_multispool import errors

PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("benchmarks/*.md")])
OUTPUT = re.compile(r"\s*It prints:\s*```text\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    """A piece of Python on a page."""

    page: str
    line: int
    text: str
    output: str | None
    """What the page says that it prints."""
    file: str | None
    """The name that the page gives it: then it is typed, by test_tutorial.py or test_typed_pages.py."""

    @property
    def complete(self) -> bool:
        """Whether it is a program of its own: it runs something at its end, and has no name."""
        return self.file is None and re.search(r"^(trio|asyncio|anyio)\.run\(", self.text, re.MULTILINE) is not None


def python_blocks() -> list[Block]:
    """Find all Python on all pages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match["language"] == "python":
                output = OUTPUT.match(text, match.end())
                line = text.count("\n", 0, match.start()) + 1
                name = page.relative_to(PROJECT).as_posix()
                shown = None if output is None else output["text"]
                found.append(Block(name, line, match["text"], shown, match["file"]))
    return found


BLOCKS = python_blocks()


def named(block: Block) -> str:
    """Name a test after the block's place."""
    return f"{block.page}:{block.line}"


PROGRAMS = [
    pytest.param(block, marks=pytest.mark.sample if block.page == "README.md" else ())
    for block in BLOCKS
    if block.complete
]


@pytest.mark.program
@pytest.mark.parametrize("block", PROGRAMS, ids=named)
def test_a_program_in_the_documentation_prints_what_it_says(block, tmp_path):
    """It runs in an empty directory, without complaint."""
    command = [sys.executable, "-W", "default", "-c", block.text]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert block.output in (None, finished.stdout)


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.complete], ids=named)
def test_a_fragment_in_the_documentation_is_python(block):
    """It compiles, where `await` may stand outside of a function."""
    compile(block.text, block.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


(README_PROGRAM,) = (block for block in BLOCKS if block.page == "README.md" and block.complete)


def test_the_readme_begins_with_the_quickstart():
    """The README's program is the file's text, to the letter, and what it prints is shown."""
    assert README_PROGRAM.output
    assert README_PROGRAM.text == (PROJECT / "examples" / "quickstart.py").read_text(encoding="utf-8")


def test_the_readme_has_less_than_120_lines():
    """So that a visitor reads it to its end."""
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.program
def test_the_example_runs_on_asyncio_as_the_readme_says(tmp_path):
    """With another last line, it prints the same."""
    text = README_PROGRAM.text.replace("import trio\n", "import asyncio\n")
    text = text.replace("trio.run(main)", "asyncio.run(main())")
    assert text.count("asyncio") == 2
    command = [sys.executable, "-W", "default", "-c", text]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (finished.stdout, finished.stderr) == (README_PROGRAM.output, "")


def test_the_example_has_fourteen_lines():
    """Not counted are empty lines and docstrings."""
    assert lines_of_code(README_PROGRAM.text) <= 14


def test_the_two_commands_of_the_readme_are_sessions():
    """The README shows the two commands by which a visitor tries it, and nox knows both."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    noxfile = (PROJECT / "noxfile.py").read_text(encoding="utf-8")
    for session in ("demo", "tests"):
        assert f"\n$ python -m pip install nox && nox -s {session}\n" in readme
        assert f"\ndef {session}(session: nox.Session)" in noxfile


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    """Every relative link leads to a file or a directory of this checkout."""
    targets = [match["target"] for match in LINK.finditer(page.read_text(encoding="utf-8"))]
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_the_api_page_has_every_public_name():
    """What can be imported from the package is documented."""
    page = (PROJECT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. (?:auto)?(?:class|exception|data|function):: (\w+)", page, re.MULTILINE)
    assert sorted(documented) == sorted(trio_multispool.__all__)


def members(name: str) -> set[str]:
    """Return the names of the classes that a name in `errors` stands for."""
    named = getattr(errors, name)
    return {error.__name__ for error in get_args(named)} or {name}


def test_the_api_page_says_which_operation_answers_what():
    """Each union of errors stands in the table, with its members."""
    page = (PROJECT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", page, re.MULTILINE))
    told = {
        union: set().union(*(members(name) for name in re.findall(r"`(\w+)`", cell))) for union, cell in rows.items()
    }
    assert told == {name: members(name) for name in vars(errors) if get_args(getattr(errors, name))}


HANDLES = {
    "spool": trio_multispool.Spool,
    "entry": trio_multispool.Entry,
    "entry.direct": trio_multispool.DirectEntry,
    "reader": trio_multispool.QueueReader,
    "job": trio_multispool.CheckedOutEntry,
    **{name: getattr(trio_multispool, name) for name in trio_multispool.__all__},
}


def test_what_comes_from_the_original_has_the_name_that_the_table_gives():
    """Every `handle.method` in the middle column of the tables is an attribute of the handle's class."""
    page = (PROJECT / "docs" / "coming-from.md").read_text(encoding="utf-8")
    cells = [row.split(" | ")[1] for row in page.splitlines() if row.startswith("| ") and row.count(" | ") == 2]
    mentioned = {
        (handle, attribute)
        for cell in cells
        for handle, attribute in re.findall(r"`([\w.]+)\.(\w+)", cell)
        if handle in HANDLES
    }
    assert len(mentioned) >= 25
    # What a handle sets when it is made is no attribute of its class.
    made = {("job", "metadata"), ("job", "data"), ("CheckedOutEntry", "metadata"), ("CheckedOutEntry", "data")}
    missing = [f"{handle}.{name}" for handle, name in mentioned - made if not hasattr(HANDLES[handle], name)]
    assert missing == []
