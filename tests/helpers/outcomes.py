"""What each operation of `helpers.stores` makes of its entry when it ends, and what it may if it is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.spools import state_of
from helpers.stores import DATA, NEW, NEW_DATA, OLD

if TYPE_CHECKING:
    from pathlib import Path

SEND, RETRY, ASIDE = "send", "retry", ".quarantine/send"
WAITING, WAITING_TO_RETRY = "send/.waiting", "retry/.waiting"

LEGAL = {
    "reserve": {None},
    "give up": {None},
    "enqueue": {None, (SEND, OLD, DATA)},
    "enqueue together": {None, (SEND, OLD, DATA)},
    "enqueue with notes": {None, (SEND, OLD, DATA)},
    "enqueue to wait": {None, (WAITING, OLD, DATA)},
    "check out what waited": {(WAITING, OLD, DATA), (SEND, OLD, DATA)},
    "check out": {(SEND, OLD, DATA)},
    "save": {(SEND, OLD, DATA), (SEND, NEW, DATA), (RETRY, NEW, DATA)},
    "save to wait": {(SEND, OLD, DATA), (SEND, NEW, DATA), (WAITING_TO_RETRY, NEW, DATA)},
    "release what waited": {(SEND, OLD, DATA), (WAITING, OLD, DATA)},
    "save together": {(SEND, OLD, DATA), (SEND, NEW, DATA), (RETRY, NEW, DATA)},
    "save unchanged": {(SEND, OLD, DATA), (RETRY, OLD, DATA)},
    "save in place": {(SEND, OLD, DATA), (SEND, NEW, DATA)},
    "release": {(SEND, OLD, DATA)},
    "remove": {(SEND, OLD, DATA), None},
    "ask to cancel": {(SEND, OLD, DATA)},
    "save what is cancelled": {(SEND, OLD, DATA), (SEND, NEW, DATA), (RETRY, NEW, DATA)},
    "remove what is cancelled": {(SEND, OLD, DATA), None},
    "quarantine": {(SEND, OLD, DATA), (ASIDE, OLD, DATA)},
    "restore": {(ASIDE, OLD, DATA), (SEND, OLD, DATA)},
    "discard": {(ASIDE, OLD, DATA), None},
    "data save": {(SEND, OLD, DATA), (SEND, OLD, NEW_DATA)},
    "direct save": {(SEND, OLD, DATA), (SEND, NEW, DATA)},
    "direct remove": {(SEND, OLD, DATA), None},
    "direct data save": {(SEND, OLD, DATA), (SEND, OLD, NEW_DATA)},
    "unsafe save": {(SEND, OLD, DATA), (SEND, NEW, DATA), (RETRY, NEW, DATA)},
    "unsafe save from the dead": {(SEND, OLD, DATA), (SEND, NEW, DATA), (RETRY, NEW, DATA)},
    "unsafe release": {(SEND, OLD, DATA)},
    "unsafe remove": {(SEND, OLD, DATA), None},
    "unsafe remove from the dead": {(SEND, OLD, DATA), None},
    "unsafe data save": {(SEND, OLD, DATA), (SEND, OLD, NEW_DATA)},
    "recover": {(SEND, OLD, DATA)},
    "sweep": {None},
}
"""What a killed operation may have made of its entry, once another process has loaded the spool."""

DONE = {
    "enqueue to wait": (WAITING, OLD, DATA),
    "save to wait": (WAITING_TO_RETRY, NEW, DATA),
    "release what waited": (WAITING, OLD, DATA),
    "save": (RETRY, NEW, DATA),
    "save together": (RETRY, NEW, DATA),
    "save unchanged": (RETRY, OLD, DATA),
    "save in place": (SEND, NEW, DATA),
    "save what is cancelled": (RETRY, NEW, DATA),
    "remove what is cancelled": None,
    "quarantine": (ASIDE, OLD, DATA),
    "restore": (SEND, OLD, DATA),
    "discard": None,
    "data save": (SEND, OLD, NEW_DATA),
    "direct save": (SEND, NEW, DATA),
    "direct data save": (SEND, OLD, NEW_DATA),
    "unsafe save": (RETRY, NEW, DATA),
    "unsafe save from the dead": (RETRY, NEW, DATA),
    "unsafe remove": None,
    "unsafe remove from the dead": None,
    "unsafe data save": (SEND, OLD, NEW_DATA),
    "reserve": None,
    "give up": None,
    "remove": None,
    "direct remove": None,
    "sweep": None,
}
"""What an operation that returned has made of it, where that is not an entry in `send`, as it was."""


def found(path: Path, name: str) -> tuple[str, bytes, bytes] | None:
    """Return where an entry is, its metadata and its data; insist that it is in one place."""
    places = state_of(path).places(name)
    if not places:
        return None
    [place] = places
    return place, (path / place / name).read_bytes(), (path / ".data" / name).read_bytes()
