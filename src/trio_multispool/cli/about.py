"""What an archive tells of an entry besides its metadata and data, so that nothing is lost on the way."""

from typing import Annotated, Final, final

import msgspec

from trio_multispool.cli.spools import AnyStorage
from trio_multispool.model.attempts import ATTEMPTS, History
from trio_multispool.model.notes import LARGEST, decode_beside
from trio_multispool.model.times import LATEST

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=LATEST)]


@final
class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of a member `NAME/about`, as JSON."""

    queue: str | None = None
    """The queue that it was in, in an archive of a whole spool."""
    due_at: _Seconds | None = None
    """Until when it waits, in seconds since 1970."""
    remember: _Seconds | None = None
    """For how long its name is to be remembered after its removal, in seconds."""
    carrier: dict[str, str] = {}
    """With which it was enqueued."""
    notes: dict[str, msgspec.Raw] = {}
    """The history of the attempts at it, if there were any."""


@final
class Memory(msgspec.Struct, frozen=True):
    """The content of a member `NAME/remembered`: the name has no entry, and is not to be used again yet."""

    until: _Seconds
    """In seconds since 1970."""


NOTHING: Final = About()
"""It is in no queue in particular, and available."""


def about(storage: AnyStorage, name: str, queue: str | None, due_at: float | None) -> bytes:
    """Return what there is to tell of an entry, as JSON; nothing, if there is nothing to tell."""
    notes = {key: value for key, value in storage.notes(name).items() if key == ATTEMPTS}
    told = About(queue, due_at, storage.remember_for(name), storage.carrier(name), notes)
    return b"" if told == NOTHING else msgspec.json.encode(told)


def read_about(raw: bytes) -> About:
    """Return what was told. Raises a `ValueError` if it cannot be read: the archive is not trusted."""
    found = decode_beside(raw, About)
    if ATTEMPTS in found.notes:
        _ = decode_beside(found.notes[ATTEMPTS], History)
    return msgspec.structs.replace(found, notes={key: found.notes[key] for key in found.notes if key == ATTEMPTS})


def read_memory(raw: bytes) -> float:
    """Return until when a name is remembered. Raises a `ValueError` likewise."""
    return decode_beside(raw, Memory).until


LARGEST_ABOUT: Final = LARGEST
"""Bytes that are read of such a member."""
