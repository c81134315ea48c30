"""The blocking store in short words, for tests that go below the spool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio_multispool.storage.directory import DirectoryStorage

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import BinaryIO

    from trio_multispool import Durability, Unavailable
    from trio_multispool.storage.protocol import Claim, Storage

QUEUES = ("send", "retry", "failed")
"""Those of `helpers.spools.Mail`."""

OLD, NEW = b'{"recipient":"anne@example.org","attempts":0}', b'{"recipient":"anne@example.org","attempts":1}'
DATA, NEW_DATA = b"Hello", b"Hello again"


def nothing() -> None:
    """Do nothing before the commit."""


def writing(content: bytes) -> Callable[[BinaryIO], None]:
    """Return a function that writes data."""

    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def make_store(path: str | os.PathLike[str], *, queues: tuple[str, ...] = QUEUES, **options: Any) -> DirectoryStorage:
    """Make a spool directory, or open the one that is there, recovering what the dead held."""
    return DirectoryStorage.open(path, queues, create=True, **options)


def enqueue(
    storage: Storage,
    queue: str,
    name: str,
    metadata: bytes = OLD,
    data: bytes = DATA,
    *,
    durability: Durability | None = None,
) -> None:
    """Reserve the name, and enqueue."""
    reservation = storage.reserve(name)
    storage.enqueue(reservation, queue, metadata, writing(data), durability=durability, before_commit=nothing)


def try_claim(storage: Storage, queue: str, name: str) -> Claim | Unavailable:
    """Check an entry out, if it is to be had."""
    return storage.claim(queue, name, before_commit=nothing)


def claim(storage: Storage, queue: str, name: str) -> Claim:
    """Check out an entry that is to be had."""
    claimed = try_claim(storage, queue, name)
    assert hasattr(claimed, "metadata"), f"{name} of {queue} is {claimed}"
    return claimed


def save(storage: Storage, claimed: Claim, queue: str, metadata: bytes | None = NEW, **options: Any) -> None:
    """Settle by saving."""
    storage.save(claimed, queue, metadata, durability=options.get("durability"), before_commit=nothing)


def remove(storage: Storage, claimed: Claim, **options: Any) -> None:
    """Settle by removing."""
    storage.remove(claimed, durability=options.get("durability"), before_commit=nothing)


def replace_data(storage: Storage, name: str, claimed: Claim | None, data: bytes = NEW_DATA, **options: Any) -> None:
    """Replace the data."""
    storage.replace_data(
        name, claimed, writing(data), durability=options.get("durability"), before_commit=nothing
    )


def read_data(storage: Storage, name: str) -> bytes:
    """Read all of the data."""
    return storage.read_data(name, lambda file: file.read())
