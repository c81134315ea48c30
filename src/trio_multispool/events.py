"""The names of what the library writes to the log, and the fields that such a record carries.

A record's message is for people, and may change. A program matches `record.event`, which is one of `Event`, and reads
the fields beside it: they are attributes of the record, by `logging`'s own `extra`, so that any formatter for
structured logs finds them.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_multispool.errors import SpoolError


class Event(enum.StrEnum):
    """What is logged, by its stable name. A name is never used for anything else, and its fields are never taken away.

    `docs/instrumentation.md` has the table of all events, their levels and their fields.
    """

    RECOVERED = "multispool.recovered"
    """An entry is back in its queue, because its owner had died."""
    COLLECTED = "multispool.collected"
    """What a dead process had left under a name that is no entry was deleted."""
    RECOVERY_PUT_OFF = "multispool.recovery_put_off"
    """The disk takes no writes, or no more files can be opened: entries of dead owners stay checked out for now."""
    NOT_RECOVERED = "multispool.not_recovered"
    """One name could not be looked into; the others were recovered."""
    COPY_DROPPED = "multispool.copy_dropped"
    """An entry was found twice, after power loss or where moves are not atomic; the older copy was deleted."""
    REPAIRED = "multispool.repaired"
    """A monitor has put a problem right; `error` says what was wrong."""
    NOT_JUDGED = "multispool.not_judged"
    """A monitor cannot read an entry's metadata, and does not tell whether it can be decoded."""
    QUARANTINED = "multispool.quarantined"
    """An entry, whose metadata could not be decoded, was set aside in quarantine."""
    NOT_QUARANTINED = "multispool.not_quarantined"
    """Likewise, but it could not be set aside, and stays in its queue."""
    PASSED_OVER = "multispool.passed_over"
    """A reader cannot read an entry, and leaves it where it is; said once of an entry, by each reader."""
    NOT_LISTED = "multispool.not_listed"
    """`checkouts_unsafe` leaves an entry out, whose metadata could not be decoded."""
    LET_GO = "multispool.let_go"
    """An entry in hand could not be returned to its queue: it stays checked out until recovery returns it."""
    LEFT_BEHIND = "multispool.left_behind"
    """An operation succeeded, and files that it should have deleted are left for recovery to collect."""
    NOT_CARRIED = "multispool.not_carried"
    """What the instrumentation sends along with an entry could not be written down; the entry is enqueued without."""
    POLLING = "multispool.polling"
    """The kernel tells of no changes, so queues are looked at every now and then; said once of a spool."""
    UNFINISHED = "multispool.unfinished"
    """Making or adopting the spool was broken off: nothing is recovered until it is done again."""
    NO_KEY = "multispool.no_key"
    """`limit_by` raised for an entry, which is limited together with all such; said once of a reader."""
    EXPIRED = "multispool.expired"
    """An entry went because of its queue's retention: it was too old, or there were too many."""
    NOT_EXPIRED = "multispool.not_expired"
    """A reader could not apply its queue's retention; it tries again."""
    ATTEMPT_FAILED = "multispool.attempt_failed"
    """A handler failed, and its entry will be tried again."""
    DEAD_LETTERED = "multispool.dead_lettered"
    """An entry was given up, after its last attempt or because another would do no better, and is a dead letter."""
    ATTEMPT_NOT_RECORDED = "multispool.attempt_not_recorded"
    """The disk is full, so that an attempt could not be written down; it is made all the same."""
    HOOK_FAILED = "multispool.hook_failed"
    """The caller's instrumentation raised; said once of each hook and type of exception."""


def about(  # noqa: PLR0913  # the fields that a record can have
    event: Event,
    spool: str,
    *,
    queue: str | None = None,
    entry: str | None = None,
    error: SpoolError | Exception | str | None = None,
    hook: str | None = None,
    attempt: int | None = None,
) -> dict[str, object]:
    """Return the fields of a record, for `extra`; those that are not given are left out.

    `spool` is the directory's path. `error` is the exception itself, or the reason in words. `attempt` is which attempt
    at the entry it was, from 1.
    """
    fields: dict[str, object] = {"event": event.value, "spool": spool}
    optional = {"queue": queue, "entry": entry, "error": error, "hook": hook, "attempt": attempt}
    fields.update((name, value) for name, value in optional.items() if value is not None)
    return fields
