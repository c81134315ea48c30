"""`multispool rm`: check entries out, and remove them."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli.arguments import AsJson, SpoolPath, TrustFileSystem
from trio_multispool.cli.completing import entry_names, queue_names
from trio_multispool.cli.moving import Task, carry_out
from trio_multispool.cli.selecting import DryRun, Selection, criteria_of


def rm(  # noqa: PLR0913  # what a person can say on the command line
    spool: SpoolPath,
    /,
    *names: Annotated[str, Parameter(name="NAME", help="The entries to remove.", completer=entry_names)],
    source: Annotated[
        str | None,
        Parameter(name="--from", help="Select entries of this queue only, not of all.", completer=queue_names),
    ] = None,
    selection: Selection | None = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
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
    criteria = criteria_of(selection, names, more=source is not None)
    task = Task(spool, source, None, dry_run=dry_run, as_json=as_json, trust_file_system=trust_file_system)
    return carry_out(task, names, criteria)
