"""What the monitor finds, for `top`: it checks the whole spool now and then, and each suspect again under its lock.

This costs more than a look by `look`: it compares the names of all directories, and a suspect is busy for others while
it is examined. So it runs rarely, and not at all in a very large spool, where it could not be interrupted for long.
Use `multispool fsck` for those.
"""

import contextlib
from collections.abc import Callable
from typing import Final

import trio

from trio_multispool.cli import checking
from trio_multispool.clock import stopwatch
from trio_multispool.errors import SpoolError
from trio_multispool.looks.problems import Problem, ownerless
from trio_multispool.looks.state import pause_after
from trio_multispool.monitor import Abandoned, Limits
from trio_multispool.monitor import Problem as Found

MOST_ENTRIES: Final = 20_000
"""In a larger spool the monitor does not run, and what it found before stays."""


async def check_again_and_again(
    path: str, every: float, entries: Callable[[], int], tell: Callable[[dict[str, Problem]], None]
) -> None:
    """Tell `tell` what each check finds, by identity, for ever. `entries` says how many entries there are."""
    while True:
        elapsed = stopwatch()
        if entries() <= MOST_ENTRIES:  # or what was found last stays: that it is not looked for is not that it is well
            with contextlib.suppress(SpoolError):  # the look reports it too
                async with checking.monitoring(path, Limits()) as monitor:
                    found = (await monitor.run_once()).unwrap()
                tell({problem.key: problem for problem in map(as_problem, found)})
        await trio.sleep(pause_after(elapsed(), every))


def as_problem(found: Found) -> Problem:
    """Return a problem in the words of `top`. A dead owner is the same problem as an owner that cannot be seen."""
    queue = found.queue or ""
    if isinstance(found, Abandoned):
        return ownerless(queue, found.name, "checked out, and its owner is dead")
    key = f"monitor/{type(found).__name__}/{found.dir.path}/{found.name}"
    return Problem(key, found.message, queue, found.name)
