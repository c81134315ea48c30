"""Work that may be killed: in a forked process, which tells by a pipe before what it died."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def in_a_fork(work: Callable[[int], None]) -> tuple[str, bool]:
    """Do some work, which is given a pipe to write to, in a fork; return what it wrote, and whether it survived.

    It ends itself with status 0. Whatever but a signal ends it otherwise is an `AssertionError`.
    """
    told, tell = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            work(tell)
        except BaseException:  # noqa: BLE001  # its status says so
            traceback.print_exc()
        finally:
            os._exit(2)
    os.close(tell)
    before = os.read(told, 4096).decode()
    os.close(told)
    _, status = os.waitpid(process, 0)
    assert status == 0 or os.WIFSIGNALED(status), status
    return before, status == 0


def are_alive(processes: list[int]) -> bool:
    """Tell whether processes run: they have not ended, and are not waited for either."""
    for process in processes:
        try:
            with open(f"/proc/{process}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return False
        except FileNotFoundError:
            return False
    return bool(processes)
