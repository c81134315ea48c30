"""The tutorial: whoever types what it says sees what it shows. Two real shells, and every block of the page."""

from __future__ import annotations

import contextlib

import pytest

from helpers.shells import Known, Shell, blocks, look_at, page, steps

PAGE = page("tutorial.md")


def test_every_block_is_of_a_kind_that_is_run():
    """But for the one that installs, which is what made this environment."""
    found = blocks(PAGE)
    assert {language for _, language, _ in found} == {"sh", "python", "console"}
    assert [text for _, language, text in found if language == "sh"] == [found[0][2]]
    assert [name for name, language, _ in found if language == "python"] == ["mail.py", "send.py", "worker.py"]
    assert PAGE.count("\n```") == 2 * len(found)


@pytest.mark.page
def test_whoever_types_it_sees_what_it_shows(tmp_path):
    """Files are made, commands are run, and the worker's lines come, in the page's order."""
    known = Known()
    with contextlib.ExitStack() as open_shells:
        shells = [open_shells.enter_context(contextlib.closing(Shell(tmp_path))) for _ in range(2)]
        typed = 0
        for name, language, text in blocks(PAGE):
            if language == "python":
                assert name is not None
                (tmp_path / name).write_text(text)
            for step in steps(text) if language == "console" else ():
                typed += 1
                command = known.told(step.command)
                if command.startswith("multispool top "):
                    look_at(command, tmp_path)
                    continue
                shell = shells[step.in_worker]
                if command:
                    shell.type(command)
                for shown in step.shown:
                    line = shell.line()
                    while "Killed" in line and "Killed" not in shown:  # what the shell says of it, in words of its own
                        line = shell.line()
                    known.check(shown, line)
                if not step.in_worker:
                    assert shell.run("") == []
        assert typed >= 16


@pytest.mark.parametrize("seen", ["nothing", "20261130T055829.819942597Z-50ad19c5 is", ""])
def test_a_line_that_is_not_what_the_page_shows_fails(seen):
    """The check can fail."""
    with pytest.raises(AssertionError):
        Known().check("20261130T055829.819942597Z-50ad19c5 is on disk", seen)
