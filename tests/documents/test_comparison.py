"""docs/comparison.md: its three programs do what they say, and have as many lines as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from helpers.pages import PROJECT, files, lines_of_code

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.page

PAGE = PROJECT / "docs" / "comparison.md"
FILES = files(PAGE)


class Program(NamedTuple):
    """One of the three, and how it is run."""

    called: str
    """In the page's table."""
    files: tuple[str, ...]
    first: str | None
    """What is run before the worker, if the worker enqueues nothing."""
    worker: str


PROGRAMS = (
    Program("trio-multispool", ("hello_here.py",), None, "python hello_here.py"),
    Program("huey", ("hello_huey.py", "send_huey.py"), "python send_huey.py", "huey_consumer hello_huey.huey"),
    Program("persist-queue", ("hello_persist_queue.py",), None, "python hello_persist_queue.py"),
)
each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.called)
DELIVERY = re.compile(r'print\("Hello,", (.+)\)$', re.MULTILINE)


@contextmanager
def worker_of(program: Program, folder: Path, *, broken: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run the program's worker in a folder until the block ends; if it is to be broken, each delivery fails."""
    for file in program.files:
        source = DELIVERY.sub('raise OSError(print("tried"))', FILES[file]) if broken else FILES[file]
        (folder / file).write_text(source)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    if program.first is not None:
        subprocess.run(program.first.split(), cwd=folder, env=environment, check=True)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            program.worker.split(), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as worker,
    ):
        try:
            yield worker
        finally:
            worker.kill()


@each_program
def test_a_program_has_the_lines_that_the_page_counts(program):
    """Empty lines and docstrings are not counted."""
    (told,) = re.findall(rf"^\| {program.called}(?: [\d.]+)? \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    assert sum(lines_of_code(FILES[file]) for file in program.files) == int(told)


def test_ours_has_fourteen_lines_at_most():
    """A hello world with a worker that stays and tries again."""
    assert lines_of_code(FILES["hello_here.py"]) <= 14


@each_program
def test_a_program_delivers_its_message(program, tmp_path):
    """And its worker stays."""
    with worker_of(program, tmp_path) as worker:
        assert worker.stdout.readline() == "Hello, anne@example.org\n"
        assert worker.poll() is None


@each_program
def test_a_delivery_that_fails_is_tried_three_times(program, tmp_path):
    """With the line that delivers broken."""
    with worker_of(program, tmp_path, broken=True) as worker:
        assert [worker.stdout.readline() for _ in range(3)] == ["tried\n"] * 3
