"""`multispool rm`: check entries out, and remove them."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli.arguments import FromQueue, Location
from trio_multispool.cli.checkouts import Task
from trio_multispool.cli.completing import entry_names
from trio_multispool.cli.moving import carry_out
from trio_multispool.cli.selecting import NOTHING_CHOSEN, Settling, criteria_of


def rm(
    spool: Location,
    /,
    *names: Annotated[str, Parameter(name="NAME", help="The entries to remove.", completer=entry_names)],
    source: FromQueue = None,
    options: Settling = NOTHING_CHOSEN,
) -> int:
    """Remove entries, with their data.

    Each is checked out and removed, so that no worker loses an entry it works on. If you name entries, all are tried;
    the exit code is that of the first that failed. If you select them, it removes the available entries that fit, skips
    those that workers have, and prints how many were removed.

    ```console
    $ multispool rm var/mail 20261124T013810.123456789Z-8f31c2aa
    $ multispool rm var/mail --from failed --older-than 30d --dry-run
    ```
    """
    criteria = criteria_of(options, names, more=source is not None)
    return carry_out(Task(spool, source, None, options, names, criteria))
