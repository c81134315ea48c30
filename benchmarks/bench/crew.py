"""The processes of one measurement: they open one system together, and are let go at the same moment."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.work import Took

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.work import Phase, Work

HERE = Path(__file__).parent.parent


def environment() -> dict[str, str]:
    """Return an environment in which a child finds this package."""
    return {**os.environ, "PYTHONPATH": os.fspath(HERE)}


def rates(
    work: Work, phases: Sequence[tuple[Phase, int]], *, before: Callable[[str], None] = lambda _folder: None
) -> list[float]:
    """Do phases one after the other, in as many processes as the work says; return entries a second, of each.

    Each phase has a number of entries, over all processes. One that works off entries must find as many. `before` is
    called before each.
    """
    with contextlib.ExitStack() as stack:
        crew: list[subprocess.Popen[str]] = []
        for number in range(work.workers):
            crew.append(stack.enter_context(_started(msgspec.structs.replace(work, worker=number))))
            _ = _line(crew[-1])  # the first makes what the others find
        found: list[float] = []
        for phase, entries in phases:
            before(work.folder)
            found.append(_together(crew, phase, entries))
        return found


@contextlib.contextmanager
def _started(work: Work):  # noqa: ANN202  # a process, for as long as it is used
    command = [sys.executable, "-m", "bench.worker", msgspec.json.encode(work).decode()]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment()
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        process.stdin.close()


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process that measures has died: {process.args[-1]}")
    return line


def _together(crew: list[subprocess.Popen[str]], phase: Phase, entries: int) -> float:
    shared = phase in {"enqueue", "enqueue_many"}
    for process in crew:
        _ = process.stdin.write(f"{phase} {entries // len(crew) if shared else entries}\n")
    for process in crew:
        _ = _line(process)
    for process in crew:
        _ = process.stdin.write("go\n")
    took = [msgspec.json.decode(_line(process), type=Took) for process in crew]
    done = sum(one.done for one in took)
    if done != entries // len(crew) * len(crew) and done != entries:
        raise RuntimeError(f"{done} of {entries} entries were there in phase {phase}")
    return done / (max(one.ended for one in took) - min(one.began for one in took))
