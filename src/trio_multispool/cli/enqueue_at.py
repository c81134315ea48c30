"""`multispool enqueue-at`: enqueue what is to wait until a time."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli.arguments import AsJson, QueueName, SpoolPath, TrustFileSystem
from trio_multispool.cli.put import put


def enqueue_at(  # noqa: PLR0913  # what a person can say on the command line
    spool: SpoolPath,
    queue: QueueName,
    time: Annotated[
        str,
        Parameter(
            name="TIME",
            help="Until when they wait: `2027-01-31T08:00`, in this machine's time zone, or with one: `…Z`.",
        ),
    ],
    /,
    *files: Annotated[
        Path,
        Parameter(
            name="FILE",
            required=True,
            allow_leading_hyphen=True,  # for `-` itself
            help="Files, each of which becomes the data of an entry; `-` is standard input.",
        ),
    ],
    meta: Annotated[
        list[str] | None, Parameter(name="--meta", negative="", help="A member of the metadata, as of `put`.")
    ] = None,
    meta_json: Annotated[
        str | None, Parameter(name="--meta-json", help="The metadata as JSON, stored as it is; `{}` unless given.")
    ] = None,
    name: Annotated[
        str | None,
        Parameter(name="--name", help="The entry's name, for a single file; made from the time unless given."),
    ] = None,
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
) -> int:
    """Enqueue files, or standard input, to wait until a time.

    The same as `put --at TIME`. A time that has come is none: the entry is available at once.

    ```console
    $ multispool enqueue-at var/mail send 2027-01-31T08:00 reminder.txt --meta to=anne@example.org
    ```
    """
    return put(
        spool,
        queue,
        *files,
        meta=meta,
        meta_json=meta_json,
        name=name,
        at=time,
        as_json=as_json,
        trust_file_system=trust_file_system,
    )
