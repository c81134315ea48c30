"""The arguments that several commands have, with their help and their completion."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli.completing import entry_names, queue_names

SpoolPath = Annotated[str | Path, Parameter(name="SPOOL", help="The spool's directory.")]
QueueName = Annotated[str, Parameter(name="QUEUE", help="A queue of the spool.", completer=queue_names)]
EntryName = Annotated[str, Parameter(name="NAME", help="The name of an entry.", completer=entry_names)]
AsJson = Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="Write JSON, for scripts.")]
TrustFileSystem = Annotated[
    bool,
    Parameter(
        name="--trust-file-system",
        negative="",
        show_default=False,
        help="Accept a file system that is not known to be local. Only if no other host mounts it.",
    ),
]
