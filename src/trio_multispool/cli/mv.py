"""`multispool mv` and `multispool rm`: check entries out, and move or remove them."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli import output
from trio_multispool.cli.arguments import AsJson, SpoolPath, TrustFileSystem
from trio_multispool.cli.completing import entry_names, names_or_queues
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.opening import looking, require_queues
from trio_multispool.cli.settling import settle_each


def mv(
    spool: SpoolPath,
    /,
    *names_and_queue: Annotated[
        str,
        Parameter(
            name="NAME... QUEUE",
            required=True,
            help="The entries, and last the queue to move them to.",
            completer=names_or_queues,
        ),
    ],
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
) -> int:
    """Move entries to another queue.

    Each is checked out and saved to the queue, metadata and data unchanged, so that no worker has it meanwhile. One
    that is being worked on is left alone. All are tried; the exit code is that of the first that failed.

    ```console
    $ multispool mv var/mail 20261124T013810.123456789Z-8f31c2aa retry
    ```
    """
    *names, queue = names_and_queue
    if not names:
        raise Failure("mv wants entries and a queue: multispool mv SPOOL NAME... QUEUE", Exit.USAGE)
    with looking(spool) as storage:
        require_queues(storage, [queue])
    settled, code = settle_each(spool, names, queue, trust_file_system=trust_file_system)
    if as_json:
        output.document([{"name": name, "from": source, "to": queue} for name, source in settled])
    return code


def rm(
    spool: SpoolPath,
    /,
    *names: Annotated[str, Parameter(name="NAME", required=True, help="The entries to remove.", completer=entry_names)],
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
) -> int:
    """Remove entries, with their data.

    Each is checked out and removed, so that none goes from under a worker's hands. All are tried; the exit code is that
    of the first that failed.

    ```console
    $ multispool rm var/mail 20261124T013810.123456789Z-8f31c2aa
    ```
    """
    settled, code = settle_each(spool, names, None, trust_file_system=trust_file_system)
    if as_json:
        output.document([{"name": name, "from": source} for name, source in settled])
    return code
