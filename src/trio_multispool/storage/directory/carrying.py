"""What a producer sends along with an entry for its workers' instrumentation: the key `trace` of `.notes/NAME`.

It is written before the entry appears, by whoever has its lock, and deleted with it. It is only as durable as it needs
to be: nothing is synced for it, and a note that power loss has torn is none. Where others may work without locks,
nothing is sent along, because a note that they left could come to belong to another entry of that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from trio_multispool.errors import SpoolError
from trio_multispool.events import Event, about
from trio_multispool.storage.directory.disk.files import discard, read_file, unlink_if_there, write_new
from trio_multispool.storage.directory.disk.layout import NOTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_multispool.storage.directory.context import Context


class _Note(msgspec.Struct):
    """What is of interest here of a note; its other keys are other people's."""

    trace: dict[str, str] = {}


_DECODER: Final = msgspec.json.Decoder(_Note)


def send_along(context: Context, name: str, carrier: Mapping[str, str] | None) -> None:
    """Write down what goes along with a new entry, whose lock is held.

    An entry is not refused for want of it: what cannot be written down is said in the log, and stays behind.
    """
    if not carrier or not context.adopted:
        return
    layout = context.layout
    try:
        if layout.optional_fd(NOTES) is None:
            _ = layout.ensure_directory(NOTES)
        unlink_if_there(layout, NOTES, name)  # of an enqueue under this reservation that failed
        write_new(layout, NOTES, name, msgspec.json.encode(_Note(dict(carrier))), sync=False)
    except SpoolError as error:
        fields = about(Event.NOT_CARRIED, layout.path, entry=name, error=error)
        context.log.warning("the trace of entry %s of spool %s ends here: %s", name, layout.path, error, extra=fields)


def leave_behind(context: Context, name: str, carrier: Mapping[str, str] | None, *, because: BaseException) -> None:
    """Unlink what was written down for an entry that is not made, while `because` is on its way out."""
    if carrier and context.adopted:
        _ = discard(context.layout, NOTES, name, because=because)


def carrier_of(context: Context, name: str) -> dict[str, str]:
    """Return what was sent along with an entry; empty if nothing was, or it cannot be read."""
    try:
        if context.layout.optional_fd(NOTES) is None:
            return {}
        return _DECODER.decode(read_file(context.layout, NOTES, name)).trace
    except (FileNotFoundError, SpoolError, msgspec.DecodeError):
        return {}
