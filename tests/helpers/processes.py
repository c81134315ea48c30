"""Code run in a process of its own: to have its own mounts, to be killed, or to start with nothing imported."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

from helpers import preforked

if TYPE_CHECKING:
    from pathlib import Path

_PROLOGUE = """
import sys
sys.path[:0] = {path!r}
"""


def run_python(
    code: str, *arguments: str | Path, check: bool = True, anew: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run code in a process that can import the library and `helpers`; arguments are `sys.argv[1:]`.

    If it is to be started `anew`, nothing is imported yet. With `check`, a process that fails is an `AssertionError`
    with what it printed.
    """
    code, words = textwrap.dedent(code), [os.fspath(argument) for argument in arguments]
    if anew:
        source = _PROLOGUE.format(path=[entry for entry in sys.path if entry]) + code
        command = [sys.executable, "-c", source, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    else:
        done = preforked.run(words, code=f"import sys\n{code}")
    if check:
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start_python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start code in a process, with pipes to its standard input and output; the caller ends it."""
    words = [os.fspath(argument) for argument in arguments]
    return preforked.Process(
        words, code=f"import sys\n{textwrap.dedent(code)}", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
