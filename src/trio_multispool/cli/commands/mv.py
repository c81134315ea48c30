"""`multispool mv`: check entries out, and move them to another queue."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli.arguments import AsJson, SpoolPath, TrustFileSystem
from trio_multispool.cli.completing import names_or_queues, queue_names
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.moving import Task, carry_out
from trio_multispool.cli.selecting import DryRun, Selection, criteria_of, is_given


def mv(  # noqa: PLR0913  # what a person can say on the command line
    spool: SpoolPath,
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
    source: Annotated[
        str | None,
        Parameter(name="--from", help="Select entries of this queue only, not of all.", completer=queue_names),
    ] = None,
    selection: Selection | None = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
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
    if not names and source is None and not is_given(selection):
        raise Failure("mv wants entries and a queue: multispool mv SPOOL NAME... QUEUE", Exit.USAGE)
    if source == queue:
        raise Failure(f"the two queues are the same: {queue!r}", Exit.USAGE)
    criteria = criteria_of(selection, names, more=source is not None)
    task = Task(spool, source, queue, dry_run=dry_run, as_json=as_json, trust_file_system=trust_file_system)
    return carry_out(task, names, criteria)
