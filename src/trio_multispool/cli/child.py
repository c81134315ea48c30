"""Running one command for one entry: its environment, its standard input, and its end."""

import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, final

import msgspec
import trio

from trio_multispool.cli import output
from trio_multispool.cli.running import Ending
from trio_multispool.entries.datafile import DataFile

GRACE: Final = 5.0
"""How many seconds a command has after SIGTERM before it is killed."""

ECHO: Final = 0.5
"""How long the death of a command by a signal waits for ours, in seconds (see `ended_with_us`)."""

_PREFIX: Final = "MULTISPOOL_"
_LONGEST: Final = 128 * 1024
"""MAX_ARG_STRLEN of Linux: with a longer variable (name and NUL included), no command starts."""

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@final
class Task(msgspec.Struct, frozen=True):
    """What a command is told about its entry."""

    spool: str
    queue: str
    name: str
    metadata: bytes
    data: str
    attempt: int | None = None
    """Which attempt at it this is, from 1, if they are counted."""


def environment(inherited: Mapping[str, str], task: Task) -> dict[str, str]:
    """Return the environment of a command.

    Metadata that cannot be a variable (because it is too long, no UTF-8, or has a NUL) is left out, and so is what an
    outer `multispool work` said of its own entry.
    """
    found = {key: value for key, value in inherited.items() if not key.startswith(_PREFIX)}
    found["MULTISPOOL_SPOOL"] = task.spool
    found["MULTISPOOL_QUEUE"] = os.fsdecode(task.queue.encode())
    found["MULTISPOOL_NAME"] = os.fsdecode(task.name.encode())
    found["MULTISPOOL_DATA"] = task.data
    if task.attempt is not None:
        found["MULTISPOOL_ATTEMPT"] = str(task.attempt)
    with contextlib.suppress(UnicodeDecodeError):
        if b"\0" not in task.metadata and len("MULTISPOOL_METADATA=\0") + len(task.metadata) <= _LONGEST:
            _ = task.metadata.decode()
            found["MULTISPOOL_METADATA"] = os.fsdecode(task.metadata)
    return found


@contextlib.asynccontextmanager
async def as_file(data: DataFile[Any]) -> AsyncGenerator[str]:
    """Yield the path of an entry's data. Raises a `SpoolError` if they have to be copied, and cannot be.

    The entry's own file need not be there: who opens it is told why it cannot be read.
    """
    if data.path is not None:
        yield str(data.path)
        return
    async with data.as_file() as path:
        yield str(path)


async def run_command(command: Sequence[str], task: Task, ending: Ending) -> tuple[int | None, str]:
    """Run a command on an entry's data. Return its status, negative for the signal that killed it, and how it ended.

    If the data cannot be read, the status is `None`. Raises `OSError` if the command cannot be started. When this is
    cancelled, the command and the processes that it started get SIGTERM, and SIGKILL after a grace.
    """
    try:
        stdin = os.open(task.data, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return None, f"its data cannot be read: {error.strerror}"
    try:
        done = await trio.run_process(
            list(command),
            stdin=stdin,
            env=environment(os.environ, task),
            check=False,
            deliver_cancel=lambda process: _end(process, ending),
            # A session of its own: Ctrl-C in the terminal is for us, who then end the command and return its entry, and
            # a signal reaches all processes that a shell started.
            start_new_session=True,
        )
    finally:
        os.close(stdin)
    return done.returncode, _told(done.returncode)


async def _end(process: trio.Process, ending: Ending) -> None:
    _signal_group(process, signal.SIGTERM)
    with trio.move_on_after(GRACE):
        await ending.hurry.wait()
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: trio.Process, number: signal.Signals) -> None:
    try:
        if process.returncode is None:
            os.killpg(process.pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        output.complain(f"not permitted to end process {process.pid}; waiting for it")


def ended_with_us(status: int) -> bool:
    """Tell whether a command died of a signal that a service manager may be sending to all of us at this moment.

    Such a death must not count as a failure of the entry if our own signal is only a moment behind.
    """
    return -status in _STOPPING or status - 128 in _STOPPING


def _told(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"
