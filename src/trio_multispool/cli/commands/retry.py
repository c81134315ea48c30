"""`multispool retry`: give entries of one queue back to another."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli.arguments import Location
from trio_multispool.cli.checkouts import Task
from trio_multispool.cli.completing import entry_names, queue_names
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.moving import carry_out
from trio_multispool.cli.selecting import NOTHING_CHOSEN, Settling, criteria_of


def retry(
    spool: Location,
    source: Annotated[str, Parameter(name="FROM", help="The queue in which they are.", completer=queue_names)],
    to: Annotated[str, Parameter(name="TO", help="The queue to move them to.", completer=queue_names)],
    /,
    *names: Annotated[str, Parameter(name="NAME", help="The entries; or select them.", completer=entry_names)],
    options: Settling = NOTHING_CHOSEN,
) -> int:
    """Give entries of one queue back to another, to be tried again.

    Use it for dead letters, for example. Each is checked out and saved to the other queue, metadata and data unchanged.
    An entry that `work --attempts`, or a reader with `retry=`, has given up gets all its attempts again, and keeps the
    history of earlier ones. Entries that workers have are skipped. Prints how many entries were moved.

    ```console
    $ multispool retry var/mail failed send --older-than 1h --meta status=75
    $ multispool retry var/mail failed send --all
    ```
    """
    if source == to:
        raise Failure(f"the two queues are the same: {source!r}", Exit.USAGE)
    criteria = criteria_of(options, names)
    return carry_out(Task(spool, source, to, options, names, criteria))
