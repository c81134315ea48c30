"""The history of an entry that failed: the key `attempts` of its notes, and the rules by which it changes.

An attempt is written down before the handler is called, so that it is known even if its worker dies. It has ended when
its failure is written down. If the entry is given back because the worker was stopped or cancelled, the attempt is
struck out again. An entry that succeeds keeps no history: its notes go with it, or the key goes when it moves on.

*Spent* is the number of attempts that count: those made since the entry came to its queue. An entry that was given up
starts from zero wherever it is taken up again, and keeps its history.
"""

from __future__ import annotations

import traceback
from typing import Final, cast, final

import msgspec

from trio_multispool.model.notes import Count, decode_key
from trio_multispool.model.text import encodable

ATTEMPTS: Final = "attempts"
"""The key."""

CANCELLED: Final = "Cancelled"
"""The type of the failure of work that somebody has cancelled."""

KEPT: Final = 20
"""Keep at most this many attempts, the last ones: notes are read at each attempt."""

LARGEST_HISTORY: Final = 3 * 1024 * 1024
"""In bytes. A larger one loses its first attempts; one attempt alone is smaller."""

LONGEST_TRACEBACK: Final = 8192
"""In characters. A longer one is cut in the middle. Only the last attempt keeps its traceback."""

LONGEST_TEXT: Final = 1000
"""Of a message or a note, in characters."""

MOST_PARTS: Final = 20
"""Keep at most this many exceptions of a group, and notes of an exception."""

MOST_TOLD: Final = 3
"""Show at most this many exceptions of a group on one line."""

_CUT: Final = "\n… cut …\n"


@final
class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an attempt failed."""

    type: str
    """The exception's class, with its module unless that is `builtins`. `RetryLater` or `GiveUp` if answered."""
    message: str = ""
    """What `str()` makes of the exception, cut if it is long."""
    notes: tuple[str, ...] = ()
    """Those that were added to the exception, such as the one that names the entry."""
    group: tuple[Failure, ...] = ()
    """The exceptions of a group and of the groups in it, in one flat list."""
    traceback: str = ""
    """Of the last attempt only."""


@final
class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call of a handler."""

    number: Count
    """From 1, over the entry's whole life."""
    queue: str
    """The queue that the entry was taken from."""
    began: float
    """In seconds since 1970, as all times."""
    host: str
    """The machine of the worker."""
    pid: Count
    """Of the worker."""
    ended: float | None = None
    """`None` if it is under way, or its worker died."""
    failure: Failure | None = None
    """Why it failed. `None` if it is under way, or its worker died: then nobody could write down why."""
    next_at: float | None = None
    """When the entry was to be tried again. `None` if it is not tried again by itself."""


@final
class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """The attempts at an entry."""

    queue: str
    """The queue in which the attempts were counted."""
    spent: Count
    """How many attempts count, the last one included."""
    attempts: tuple[Attempt, ...]
    """The last ones, in order."""
    given_up: bool = False
    """Whether it was put into the dead-letter queue."""


@final
class Mark(msgspec.Struct, frozen=True):
    """That an attempt begins: what is known of it before the history of the entry is."""

    queue: str
    """The queue that the entry is taken from."""
    at: float
    """In seconds since 1970."""
    host: str
    pid: int


class Begun(msgspec.Struct, frozen=True):
    """An attempt at an entry that is in hand: what was found of those before, and what is noted of this one."""

    history: History
    """With this one; as it was found, if no attempt is left."""
    number: int
    """Of this one; of the last one, if no attempt is left."""
    exhausted: bool
    """Whether no attempt is left, so that the handler is not to be called."""
    found: dict[str, msgspec.Raw]
    """The entry's notes before."""

    @property
    def notes_before(self) -> dict[str, bytes | None]:
        """Return what puts the notes back as they were."""
        return {ATTEMPTS: bytes(self.found[ATTEMPTS]) if ATTEMPTS in self.found else None}


def history_in(notes: dict[str, msgspec.Raw]) -> History | None:
    """Return the history in the notes, or `None` if it is missing, cannot be read, or has no attempt."""
    history = decode_key(notes, ATTEMPTS, History)
    return history if history is not None and history.attempts else None


def encode_history(history: History) -> bytes:
    """Return the value of the key."""
    while len(raw := msgspec.json.encode(history)) > LARGEST_HISTORY and len(history.attempts) > 1:
        history = msgspec.structs.replace(history, attempts=history.attempts[1:])
    return raw


def spent_before(history: History | None, queue: str) -> int:
    """Return how many attempts count already when an entry is taken from a queue."""
    if history is None or history.given_up or history.queue != queue:
        return 0
    return history.spent


def begun(history: History | None, mark: Mark) -> History:
    """Return the history with one more attempt."""
    earlier = () if history is None else history.attempts
    number = earlier[-1].number + 1 if earlier else 1
    attempt = Attempt(number=number, queue=mark.queue, began=mark.at, host=mark.host, pid=mark.pid)
    return History(mark.queue, spent_before(history, mark.queue) + 1, (*earlier, attempt)[-KEPT:])


def failed(history: History, failure: Failure, *, at: float, next_at: float | None) -> History:
    """Return the history with the last attempt failed. If `next_at` is `None`, the entry is given up."""
    *earlier, last = history.attempts
    last = msgspec.structs.replace(last, ended=at, failure=failure, next_at=next_at)
    return msgspec.structs.replace(
        history, attempts=(*map(_without_traceback, earlier), last), given_up=next_at is None
    )


def abandoned(history: History) -> History:
    """Return the history given up: the attempts are used up, and the worker of the last one died."""
    return msgspec.structs.replace(history, given_up=True)


def _without_traceback(attempt: Attempt) -> Attempt:
    if attempt.failure is None or not attempt.failure.traceback:
        return attempt
    return msgspec.structs.replace(attempt, failure=msgspec.structs.replace(attempt.failure, traceback=""))


def failure_of(error: BaseException) -> Failure:
    """Return the parts of an exception that are kept."""
    text = "".join(traceback.format_exception(error))
    return msgspec.structs.replace(_in_short(error), traceback=_cut(text, LONGEST_TRACEBACK))


def _in_short(error: BaseException) -> Failure:
    notes = [_cut(str(note), LONGEST_TEXT) for note in getattr(error, "__notes__", ())]
    group = [_in_short(each) for each in _parts(error)] if isinstance(error, BaseExceptionGroup) else []
    message = _cut(_message(error), LONGEST_TEXT)
    kind = _cut(type_name(type(error)), LONGEST_TEXT)
    return Failure(kind, message, tuple(notes[:MOST_PARTS]), tuple(group[:MOST_PARTS]))


def answered(what: str, reason: str) -> Failure:
    """Return the failure to keep for a handler's answer."""
    return Failure(what, _cut(reason, LONGEST_TEXT))


def failure_told(failure: Failure) -> str:
    """Return a failure on one line. For a group, list what is in it: the group's own message gives only a count."""
    if failure.group:
        parts = [failure_told(part) for part in failure.group[:MOST_TOLD]]
        more = len(failure.group) - len(parts)
        return f"{failure.type}: {'; '.join(parts)}{f'; and {more} more' if more else ''}"
    message = " ".join(failure.message.split())
    return f"{failure.type}: {message}" if message else failure.type


def _parts(error: BaseException) -> list[BaseException]:
    """Return the exceptions of a group and of the groups in it. Any other exception stands for itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [part for each in cast("tuple[BaseException, ...]", error.exceptions) for part in _parts(each)]


def type_name(kind: type[BaseException]) -> str:
    """Return the name of a class of exceptions, as a traceback shows it."""
    bare = kind.__module__ in {"builtins", "__main__"}
    return kind.__qualname__ if bare else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # the user's class may raise anything there, and the failure must still be kept
        return "<no message: its __str__ raises>"


def _cut(text: str, most: int) -> str:
    text = encodable(text)
    if len(text) <= most:
        return text
    head = most // 4
    return text[:head] + _CUT + text[len(text) - (most - head - len(_CUT)) :]
