"""The history of an entry that failed: the key `attempts` of its notes, and the rules by which it changes.

An attempt is written down before the handler is called, so that one which its worker does not survive is known. It has
ended when its failure is written down; one that was given back, because the worker was stopped or cancelled, is struck
out again. What succeeds has no history: its notes go with the entry, or the key does when it moves on.

*Spent* is how many attempts count: those made since the entry came to its queue. An entry that was given up begins
anew wherever it is taken up again, and keeps its history.
"""

from __future__ import annotations

import traceback
from typing import Final, cast, final

import msgspec

ATTEMPTS: Final = "attempts"
"""The key."""

KEPT: Final = 20
"""How many attempts are kept, the last ones: notes are read at each attempt."""

LONGEST_TRACEBACK: Final = 8192
"""In characters; what is longer is cut in the middle. Only that of the last attempt is kept."""

LONGEST_TEXT: Final = 1000
"""Of a message or a note, in characters."""

MOST_PARTS: Final = 20
"""How many of a group's exceptions are kept, and of an exception's notes."""

MOST_TOLD: Final = 3
"""How many of a group's exceptions are told on one line."""

_CUT: Final = "\n… cut …\n"


@final
class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an attempt failed."""

    type: str
    """The exception's class, with its module unless that is `builtins`; `RetryLater` or `GiveUp`, if answered."""
    message: str = ""
    notes: tuple[str, ...] = ()
    group: tuple[Failure, ...] = ()
    """What was in an exception group, without the groups in it."""
    traceback: str = ""


@final
class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call of a handler."""

    number: int
    """From 1, over the entry's whole life."""
    queue: str
    began: float
    """In seconds since 1970, as all times."""
    host: str
    pid: int
    """Of the worker."""
    ended: float | None = None
    """`None`: it is under way, or its worker died."""
    failure: Failure | None = None
    next_at: float | None = None
    """When the entry was to be tried again; `None`: not by itself."""


@final
class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """The attempts at an entry."""

    queue: str
    """Where attempts are counted."""
    spent: int
    """How many count, with the last one."""
    attempts: tuple[Attempt, ...]
    """The last ones, in order."""
    given_up: bool = False
    """Whether it was put into the dead-letter queue."""


_DECODER: Final = msgspec.json.Decoder(History)


def history_in(notes: dict[str, msgspec.Raw]) -> History | None:
    """Return the history that the notes hold; none if there is none, or it cannot be read, or has no attempt in it."""
    try:
        history = _DECODER.decode(notes[ATTEMPTS]) if ATTEMPTS in notes else None
    except msgspec.DecodeError:
        return None
    return history if history is not None and history.attempts else None


def encode_history(history: History) -> bytes:
    """Return the value of the key."""
    return msgspec.json.encode(history)


def spent_before(history: History | None, queue: str) -> int:
    """Return how many attempts count, of an entry that is taken from a queue."""
    if history is None or history.given_up or history.queue != queue:
        return 0
    return history.spent


def begun(history: History | None, queue: str, *, at: float, host: str, pid: int) -> History:
    """Return the history with one attempt more."""
    earlier = () if history is None else history.attempts
    number = earlier[-1].number + 1 if earlier else 1
    attempt = Attempt(number=number, queue=queue, began=at, host=host, pid=pid)
    return History(queue, spent_before(history, queue) + 1, (*earlier, attempt)[-KEPT:])


def failed(history: History, failure: Failure, *, at: float, next_at: float | None) -> History:
    """Return the history with the last attempt failed; without a `next_at`, it is given up."""
    *earlier, last = history.attempts
    last = msgspec.structs.replace(last, ended=at, failure=failure, next_at=next_at)
    return msgspec.structs.replace(
        history, attempts=(*map(_without_traceback, earlier), last), given_up=next_at is None
    )


def abandoned(history: History) -> History:
    """Return the history of an entry whose attempts are used up, the last of them by a worker that died."""
    return msgspec.structs.replace(history, given_up=True)


def _without_traceback(attempt: Attempt) -> Attempt:
    if attempt.failure is None or not attempt.failure.traceback:
        return attempt
    return msgspec.structs.replace(attempt, failure=msgspec.structs.replace(attempt.failure, traceback=""))


def failure_of(error: BaseException) -> Failure:
    """Return what is kept of an exception."""
    text = "".join(traceback.format_exception(error))
    return msgspec.structs.replace(_in_short(error), traceback=_cut(text, LONGEST_TRACEBACK))


def _in_short(error: BaseException) -> Failure:
    notes = [_cut(str(note), LONGEST_TEXT) for note in getattr(error, "__notes__", ())]
    group = [_in_short(each) for each in _parts(error)] if isinstance(error, BaseExceptionGroup) else []
    message = _cut(_message(error), LONGEST_TEXT)
    return Failure(type_name(type(error)), message, tuple(notes[:MOST_PARTS]), tuple(group[:MOST_PARTS]))


def answered(what: str, reason: str) -> Failure:
    """Return what is kept of an answer that is a failure."""
    return Failure(what, _cut(reason, LONGEST_TEXT))


def failure_told(failure: Failure) -> str:
    """Return a failure on one line: of a group, what is in it, for its own message says how many only."""
    if failure.group:
        parts = [failure_told(part) for part in failure.group[:MOST_TOLD]]
        more = len(failure.group) - len(parts)
        return f"{failure.type}: {'; '.join(parts)}{f'; and {more} more' if more else ''}"
    message = " ".join(failure.message.split())
    return f"{failure.type}: {message}" if message else failure.type


def _parts(error: BaseException) -> list[BaseException]:
    """Return what is in a group and the groups in it; of any other exception, itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [part for each in cast("tuple[BaseException, ...]", error.exceptions) for part in _parts(each)]


def type_name(kind: type[BaseException]) -> str:
    """Return how a class of exceptions is called, as a traceback has it."""
    bare = kind.__module__ in {"builtins", "__main__"}
    return kind.__qualname__ if bare else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # whatever a class of the user's raises there: the failure must be kept all the same
        return "<no message: its __str__ raises>"


def _cut(text: str, most: int) -> str:
    text = text.encode(errors="backslashreplace").decode()  # lone surrogates are no JSON
    if len(text) <= most:
        return text
    head = most // 4
    return text[:head] + _CUT + text[len(text) - (most - head - len(_CUT)) :]
