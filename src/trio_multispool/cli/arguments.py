"""The arguments that several commands have, with their help and their completion."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli.completing import entry_names, queue_names

Location = Annotated[
    str,
    Parameter(name="SPOOL", help="The spool's directory, or its URL: `postgresql://USER@HOST/DATABASE?spool=NAME`."),
]
QueueName = Annotated[str, Parameter(name="QUEUE", help="A queue of the spool.", completer=queue_names)]
AnyQueue = Annotated[str | None, Parameter(completer=queue_names)]
OneQueue = Annotated[AnyQueue, Parameter(name="QUEUE", help="Only this queue.")]
EntryName = Annotated[str, Parameter(name="NAME", help="The name of an entry.", completer=entry_names)]
FromQueue = Annotated[AnyQueue, Parameter(name="--from", help="Select entries of this queue only, not of all.")]
AsJson = Annotated[bool, Parameter(name="--json", help="Write JSON, for scripts.")]
DryRun = Annotated[bool, Parameter(name=["--dry-run", "-n"], help="Change nothing; say what would be done.")]
TrustFileSystem = Annotated[
    bool, Parameter(help="Accept a file system that is not known to be local. Only if no other host mounts it.")
]
