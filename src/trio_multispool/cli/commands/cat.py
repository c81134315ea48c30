"""`multispool cat`: write an entry's data to standard output."""

import shutil

from trio_multispool.cli import output
from trio_multispool.cli.arguments import EntryName, Location
from trio_multispool.cli.exits import Failure
from trio_multispool.cli.finding import no_entry
from trio_multispool.cli.spools import looking
from trio_multispool.errors import DataNotFound
from trio_multispool.model.names import invalid_name

_CHUNK = 1 << 20


def cat(spool: Location, name: EntryName, /) -> None:
    """Write an entry's data to standard output, as it is.

    The entry may be available, checked out or set aside; nothing is locked, and nothing is changed.

    ```console
    $ multispool cat var/mail 20261124T013810.123456789Z-8f31c2aa | less
    ```
    """
    if (fault := invalid_name(name)) is not None:
        raise fault
    with looking(spool) as storage, output.writing() as out:
        try:
            storage.read_data(name, lambda file: shutil.copyfileobj(file, out.buffer, _CHUNK))
        except DataNotFound:
            found = storage.find(name)
            if found is None:
                raise no_entry(storage, name) from None
            what = f"entry {name!r} of queue {found.place.queue!r} has lost its data; see multispool fsck"
            raise Failure(what) from None
