"""How the history of an entry's attempts is shown, to people and to scripts."""

import datetime
from typing import cast

from msgspec import Struct
from msgspec.structs import asdict

from trio_multispool.looks.ages import human_length, human_time
from trio_multispool.model.attempts import CANCELLED, Attempt, History, failure_told


def told_history(history: History, *, queue: str, at_work: bool) -> list[str]:
    """Return lines: what the attempts came to, then each of them, then the last traceback.

    `queue`: where the entry is now.

    `at_work`: whether somebody has the entry, so that an attempt that has not ended is under way.
    """
    last = history.attempts[-1].number if history.attempts else 0
    failure = history.attempts[-1].failure if history.attempts else None
    came_to = f"{history.spent} count in {history.queue}"
    if history.given_up:
        came_to = "cancelled" if failure is not None and failure.type == CANCELLED else "given up"
        if queue == history.queue:
            came_to += " before, and put back: none of them counts"
    lines = [f"attempts  {last}, {came_to}"]
    for attempt in history.attempts:
        under_way = at_work and attempt is history.attempts[-1] and attempt.ended is None
        lines.append(f"  {attempt.number:>3}  {_told_attempt(attempt, under_way=under_way)}")
    if failure is not None:  # a traceback has what a line did not say: the notes, and what is in a group
        lines += [f"       {line}" for line in failure.traceback.splitlines()]
    return lines


def _told_attempt(attempt: Attempt, *, under_way: bool) -> str:
    when = f"{_time(attempt.began)}, {attempt.queue}, {attempt.host}[{attempt.pid}]"
    if attempt.failure is None:
        return f"{when}: {'under way' if under_way else 'its worker died'}"
    took = "" if attempt.ended is None else f", took {human_length(attempt.ended - attempt.began)}"
    return f"{when}{took}: {failure_told(attempt.failure)}"


def _time(at: float) -> str:
    try:
        return human_time(datetime.datetime.fromtimestamp(at, datetime.UTC))
    except (ValueError, OverflowError, OSError):  # notes are written by any program
        return f"at {at}"


def history_document(value: object) -> object:
    """Return a history, or a part of it, for a script, also the fields that are not kept: they are the default."""
    if isinstance(value, tuple):
        return [history_document(each) for each in cast("tuple[object, ...]", value)]
    if isinstance(value, Struct):
        return {key: history_document(field) for key, field in asdict(value).items()}
    return value
