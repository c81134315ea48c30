"""Code run in processes of its own: to be another user, another mount namespace, or to start with nothing imported."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PROLOGUE = """
import sys
sys.path[:0] = {path!r}
"""


def run_python(code: str, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter that can import the library and `helpers`; arguments are `sys.argv[1:]`.

    With `check`, a process that fails is an `AssertionError` with what it printed.
    """
    source = _PROLOGUE.format(path=[entry for entry in sys.path if entry]) + textwrap.dedent(code)
    command = [sys.executable, "-c", source, *(os.fspath(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if check:
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start_python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start code likewise, with pipes to its standard input and output; the caller ends it."""
    source = _PROLOGUE.format(path=[entry for entry in sys.path if entry]) + textwrap.dedent(code)
    command = [sys.executable, "-c", source, *(os.fspath(argument) for argument in arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
