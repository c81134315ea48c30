"""Opening a spool of any program: its metadata is taken as it is, and its data is left alone."""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, TypeAlias, cast

from trio_multispool.model.codecs import Bytes
from trio_multispool.model.spoolable import Spoolable
from trio_multispool.session.stores import Opened, look_at_store, open_store
from trio_multispool.spool.spool import Spool, open_spool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

AnySpool: TypeAlias = Spool[enum.Enum, bytes, bytes]
"""A spool whose metadata and data are bytes."""

_NO_QUEUE = "none"


def _spoolable(queues: Sequence[str]) -> Spoolable[enum.Enum, bytes, bytes]:
    # A queue may be called what no member of an enum can be (`mro`, `a b`): members are numbered.
    members = {f"Q{number}": queue for number, queue in enumerate(dict.fromkeys(queues or [_NO_QUEUE]))}
    make = cast("Callable[[str, dict[str, str]], type[enum.Enum]]", enum.Enum)
    return Spoolable(queues=make("Queues", members), metadata=Bytes(), data=Bytes())


def member(spool: AnySpool, queue: str) -> enum.Enum:
    """Return the member that stands for a queue that the spool was opened with."""
    return spool.spoolable.queues(queue)


async def to_look(location: str, queues: Sequence[str]) -> AnySpool:
    """Open a spool to check it: nothing is recovered, and nothing written. Raises a `SpoolError`."""
    return (await open_spool(location, _spoolable(queues), None, lambda: Opened(look_at_store(location), []))).unwrap()


async def to_change(location: str, queues: Sequence[str]) -> AnySpool:
    """Open a spool to act on some of its queues, which must be there. Recovers nothing. Raises a `SpoolError`."""
    wanted = list(dict.fromkeys(queues))
    opening = functools.partial(open_store, location, wanted, recover=False)
    return (await open_spool(location, _spoolable(wanted), None, opening)).unwrap()
