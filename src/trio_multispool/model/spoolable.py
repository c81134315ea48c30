"""`Spoolable`: what a spool holds. Its queues, its metadata, its data, and the names of its entries."""

from __future__ import annotations

import enum
from typing import Generic, final

from trio_multispool.model.codecs import DataCodec, MetadataCodec, data_codec, metadata_codec
from trio_multispool.model.names import NameGenerator, invalid_name
from trio_multispool.model.types import A, D, M, Q


@final
class Spoolable(Generic[Q, M, D, A]):
    """Says what a spool holds; give it to `Spool.create` and `Spool.load`.

    - `queues`: an `enum.Enum` whose values are the names of the queues' directories.
    - `metadata`: the type of the entries' metadata (stored as JSON by msgspec), or a codec with `encode` and `decode`.
    - `data`: the type of their data (`bytes` and `str` are stored as they are, other types as JSON), or a codec with
      `load` and `dump`. Without it, entries have no data.
    - `names`: a generator of names with `next(argument, attempt)`; by default names sort by time.

    Raises `InvalidName` (a `ValueError`) for a queue whose value cannot be a directory name, `ValueError` for an enum
    without members or with two names for one queue, and `TypeError` for anything that is not a type or a codec, and for
    a type whose values msgspec cannot give back; it names the class, where it is, and the cure.

    ```python
    class Mail(enum.Enum):
        SEND = "send"
        FAILED = "failed"


    MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes)
    ```
    """

    def __init__(
        self,
        queues: type[Q],
        metadata: type[M] | MetadataCodec[M],
        data: type[D] | DataCodec[D] | None = None,
        names: NameGenerator[A] | None = None,
    ) -> None:
        _check_queues(queues)
        self.queues: type[Q] = queues
        self.metadata: MetadataCodec[M] = metadata_codec(metadata)
        self.data: DataCodec[D] = data_codec(data)
        self.names: NameGenerator[A] | None = names

    def __repr__(self) -> str:
        return f"Spoolable(queues={self.queues.__name__}, metadata={self.metadata!r}, data={self.data!r})"


def queue_names(queues: type[enum.Enum]) -> list[str]:
    """Return the directory names of the queues, in the enum's order."""
    return [str(queue.value) for queue in queues]


def _check_queues(queues: type[enum.Enum]) -> None:
    if not (isinstance(queues, type) and issubclass(queues, enum.Enum)):
        raise TypeError(f"queues must be an enum.Enum class, not {queues!r}")
    if not list(queues):
        raise ValueError(f"{queues.__name__} has no members: a spool needs at least one queue")
    for label, queue in queues.__members__.items():
        if not isinstance(queue.value, str):
            raise TypeError(f"{queues.__name__}.{label} must have a string as its value, the queue's directory name")
        if queue.name != label:
            message = f"{queues.__name__}.{label} and .{queue.name} are one queue, {queue.value!r}; values must differ"
            raise ValueError(message)
        if (fault := invalid_name(queue.value)) is not None:
            raise fault
