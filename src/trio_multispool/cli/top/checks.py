"""What the monitor finds, for `top`: it checks the whole spool now and then, and each suspect again under its lock.

This costs more than a look by `look`: it compares the names of all directories, and a suspect is busy for others while
it is examined. So it runs rarely, and not at all in a very large spool, where it could not be interrupted for long.
Use `multispool fsck` for those.
"""

import contextlib
from collections.abc import Callable

import trio

from trio_multispool.cli import checking
from trio_multispool.clock import stopwatch
from trio_multispool.errors import SpoolError
from trio_multispool.looks.problems import MOST_ENTRIES, Problem, of_monitor
from trio_multispool.looks.state import pause_after
from trio_multispool.monitor import Limits


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
                tell({problem.key: problem for problem in map(of_monitor, found)})
        await trio.sleep(pause_after(elapsed(), every))
