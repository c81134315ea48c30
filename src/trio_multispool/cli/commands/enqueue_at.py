"""`multispool enqueue-at`: enqueue entries that wait until a time."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli.arguments import AsJson, Location, QueueName, TrustFileSystem
from trio_multispool.cli.commands.put import NOTHING_SAID, Described, Files, put


def enqueue_at(  # noqa: PLR0913  # what a person can say on the command line
    spool: Location,
    queue: QueueName,
    time: Annotated[
        str,
        Parameter(
            name="TIME",
            help="The time they wait for: `2027-01-31T08:00`, in this machine's time zone, or with one: `…Z`.",
        ),
    ],
    /,
    *files: Files,
    described: Described = NOTHING_SAID,
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
) -> int:
    """Enqueue files, or standard input, to wait until a time.

    The same as `put --at TIME`. A time in the past means no delay: the entry is available at once.

    ```console
    $ multispool enqueue-at var/mail send 2027-01-31T08:00 reminder.txt --meta to=anne@example.org
    ```
    """
    return put(spool, queue, *files, described=described, at=time, as_json=as_json, trust_file_system=trust_file_system)
