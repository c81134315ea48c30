"""The names of what the library writes to the log, and the fields that such a record carries.

A record's message is for people, and may change. A program matches `record.event`, which is one of `Event`, and reads
the fields beside it. They are attributes of the record, set by `logging`'s own `extra`, so any formatter for structured
logs finds them.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import sys
import traceback
from textwrap import indent
from typing import TYPE_CHECKING, Final

from trio_multispool.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

LOGGER: Final = logging.getLogger("trio_multispool")


class Event(enum.StrEnum):
    """The stable names of log records. A name never changes its meaning, and never loses a field.

    This is not `monitor.Event`, which is the start or the end of a problem that a monitor watches.
    `docs/instrumentation.md` has the table of all names, their levels and their fields.
    """

    RECOVERED = "multispool.recovered"
    """An entry is back in its queue, because its owner died."""
    COLLECTED = "multispool.collected"
    """Files were deleted that a dead process had left and that belong to no entry."""
    RECOVERY_PUT_OFF = "multispool.recovery_put_off"
    """The disk takes no writes, or no file can be opened. Entries of dead owners stay checked out for now."""
    NOT_RECOVERED = "multispool.not_recovered"
    """Recovery could not examine one name, or one directory; the others were recovered."""
    COPY_DROPPED = "multispool.copy_dropped"
    """An entry was found twice, after power loss or where moves are not atomic; the older copy was deleted."""
    REPAIRED = "multispool.repaired"
    """A monitor repaired a problem; `error` says what was wrong."""
    NOT_JUDGED = "multispool.not_judged"
    """A monitor cannot read an entry's metadata, so it cannot say whether it can be decoded."""
    QUARANTINED = "multispool.quarantined"
    """An entry was set aside in quarantine, because its metadata cannot be decoded."""
    NOT_QUARANTINED = "multispool.not_quarantined"
    """An entry's metadata cannot be decoded, and the entry could not be set aside: it stays in its queue."""
    PASSED_OVER = "multispool.passed_over"
    """A reader cannot read an entry, or a listing a directory. Logged once for an entry and reader, or a directory."""
    NOT_LISTED = "multispool.not_listed"
    """`checkouts_unsafe` leaves an entry out, because its metadata cannot be decoded."""
    LET_GO = "multispool.let_go"
    """An entry in hand could not be returned to its queue. It stays checked out until recovery returns it."""
    LEFT_BEHIND = "multispool.left_behind"
    """An operation succeeded, but could not delete all its files. Recovery will collect them."""
    NOT_CARRIED = "multispool.not_carried"
    """What the instrumentation sends along with an entry could not be written. The entry is enqueued without it."""
    UNREADABLE_NOTES = "multispool.unreadable_notes"
    """What lies beside an entry cannot be read: notes and reasons count as none, a key as remembered. Logged once."""
    POLLING = "multispool.polling"
    """The kernel reports no changes, so readers look at their queues now and then. Logged once for a spool."""
    NOT_LISTENING = "multispool.not_listening"
    """Requests to cancel entries in hand are not passed on any more, because of a bug; `error` is what was raised."""
    CANCELLED = "multispool.cancelled"
    """An entry was cancelled, as somebody had asked: it was removed, or saved as its reader says."""
    OPERATED = "multispool.operated"
    """A person has acted on an entry in the dashboard; `error` says why it was not done, if it was not."""
    UNFINISHED = "multispool.unfinished"
    """Making or adopting the spool was interrupted. Nothing is recovered until that is done again."""
    NO_KEY = "multispool.no_key"
    """`limit_by` raised for an entry. All such entries share one limit. Logged once for a reader."""
    EXPIRED = "multispool.expired"
    """An entry was removed by its queue's retention: it was too old, or there were too many."""
    NOT_EXPIRED = "multispool.not_expired"
    """A reader could not apply its queue's retention; it tries again."""
    MISDATED = "multispool.misdated"
    """Entries are dated as they cannot be, so a retention leaves them. Logged once for a queue, with the first."""
    ATTEMPT_FAILED = "multispool.attempt_failed"
    """A handler failed, and its entry will be tried again."""
    DEAD_LETTERED = "multispool.dead_lettered"
    """An entry was given up and is a dead letter: its attempts are used up, or another would do no better."""
    ATTEMPT_NOT_RECORDED = "multispool.attempt_not_recorded"
    """An attempt was made and is not written down, or the other way round: there was no room or file for its notes."""
    HOOK_FAILED = "multispool.hook_failed"
    """The caller's instrumentation raised. Logged once for each hook and type of exception."""


FIELDS: Final = ("queue", "entry", "error", "hook", "attempt")
"""The fields that a record can have besides `event` and `spool`, the directory's path.

`error` is the exception itself, or the reason in words. `attempt` is the number of the attempt, from 1.
"""


def about(event: Event, spool: str, **told: object) -> dict[str, object]:
    """Return the fields of a record, for `extra`: those of what is `told` that are not `None`."""
    given = {name: told[name] for name in FIELDS if told.get(name) is not None}
    return {"event": event.value, "spool": spool, **given}


def log(
    write: Callable[..., None],
    event: Event,
    spool: str,
    message: str,
    *,
    traceback_of: BaseException | None = None,
    **told: object,
) -> None:
    """Write a record with its fields, by a method of a logger such as `LOGGER.warning`.

    `message` shows what is `told` by its name: `"entry %(entry)s was let go: %(error)s"`. There it is printable, and on
    one line: names and errors may come from anybody. The `FIELDS` among it are as they are.
    The traceback, if there is one to show, follows in lines that are indented.

    A handler, a filter or a record factory that raises loses the record, and no more: it is told on standard error, as
    `logging` does itself for a handler whose `emit` fails.
    """
    try:
        fields = about(event, spool, **told)
        shown = {name: _shown(value) for name, value in (told | fields).items()}
        if traceback_of is not None:  # not as `exc_info`, which would show what the exception says as it is
            lines = "".join(traceback.format_exception(traceback_of)).rstrip()
            message, shown["traceback"] = message + "\n%(traceback)s", indent(printable(lines, keep="\n"), "  ")
        write(message, shown, extra=fields, stacklevel=2)
    except Exception:  # noqa: BLE001  # what is logged has happened
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # `ValueError`: it is closed
                traceback.print_exc(chain=False)


def _shown(value: object) -> object:
    return value if isinstance(value, (int, float)) else printable(str(value))
