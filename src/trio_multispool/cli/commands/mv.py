"""`multispool mv`: check entries out, and move them to another queue."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli.arguments import FromQueue, Location
from trio_multispool.cli.checkouts import Task
from trio_multispool.cli.completing import names_or_queues
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.moving import carry_out
from trio_multispool.cli.selecting import NOTHING_CHOSEN, Settling, criteria_of


def mv(
    spool: Location,
    /,
    *names_and_queue: Annotated[
        str,
        Parameter(
            name="NAME... QUEUE",
            required=True,
            help="The entries (unless you select them), and last the queue to move them to.",
            completer=names_or_queues,
        ),
    ],
    source: FromQueue = None,
    options: Settling = NOTHING_CHOSEN,
) -> int:
    """Move entries to another queue.

    Each is checked out and saved to the queue, metadata and data unchanged, so that no worker has it meanwhile. An
    entry that is being worked on is left alone. If you name entries, all are tried; the exit code is that of the first
    that failed. If you select them, it moves the available entries that fit, and prints how many.

    ```console
    $ multispool mv var/mail 20261124T013810.123456789Z-8f31c2aa retry
    $ multispool mv var/mail archive --from done --older-than 2d
    ```
    """
    *names, queue = names_and_queue
    if not names and source is None and not (options.narrow or options.everything):
        raise Failure("mv wants entries and a queue: multispool mv SPOOL NAME... QUEUE", Exit.USAGE)
    if source == queue:
        raise Failure(f"the two queues are the same: {queue!r}", Exit.USAGE)
    criteria = criteria_of(options, names, more=source is not None)
    return carry_out(Task(spool, source, queue, options, names, criteria))
