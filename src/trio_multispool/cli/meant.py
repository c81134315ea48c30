"""What was probably meant by a path into a spool where the spool's own path belongs: `ls mail/send`."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from trio_multispool.cli.spools import looking
from trio_multispool.errors import SpoolError
from trio_multispool.model.names import invalid_name
from trio_multispool.session.stores import is_directory

_QUEUE_NEXT: Final = frozenset(
    {"create", "put", "enqueue-at", "ls", "stats", "work", "retry", "expire", "export", "import", "quarantine ls"}
)
"""The commands that take a queue right after the spool."""

_NAMES_NEXT: Final = frozenset(
    {"show", "cat", "mv", "rm", "cancel", "quarantine show", "quarantine retry", "quarantine drop"}
)
"""Those that take names of entries there."""

_SELECTING: Final = frozenset({"--older-than", "--meta", "--name", "--all"})

_DEEPEST: Final = 3
"""`spool/queue/.checkout/entry` is this many levels below the spool."""


class _Inside(NamedTuple):
    """A path into a spool, taken apart."""

    spool: str
    queue: str
    name: str | None


def meant(arguments: Sequence[str], path: str | None = None) -> str | None:
    """Return what to tell of a command line that has a path into a spool in the place of the spool's; `None` if not.

    That is the argument for `path`, which was refused, or else the first after the command.
    """
    if path is not None and not Path(path).is_absolute():  # the working directory has been deleted
        return None
    length = 2 if arguments[:1] == ["quarantine"] else 1
    command, words = " ".join(arguments[:length]), [*arguments[length:]]
    for position, word in enumerate(words):
        if word == "--":
            break
        if not word.startswith("-") and path in {None, os.path.abspath(word)}:  # noqa: PTH100  # as typed, but absolute
            inside = _taken_apart(word)
            instead = None if inside is None else _put_right(command, words, position, inside)
            if inside is None or instead is None:
                return None
            return f"{word!r} lies in the spool {inside.spool!r}; did you mean: multispool {shlex.join(instead)}"
    return None


def _taken_apart(word: str) -> _Inside | None:
    if not is_directory(word):
        return None
    path = Path(word)
    if path.name in {"", ".."}:  # `.`: who stands in the queue's directory
        path = Path(os.path.abspath(word))  # noqa: PTH100  # `resolve` would follow symlinks
    for parent in path.parents[:_DEEPEST]:
        queue, *below = path.relative_to(parent).parts
        try:
            with looking(str(parent)) as storage:
                if queue in storage.queues():
                    name = below[-1] if below and invalid_name(below[-1]) is None else None
                    return _Inside(str(parent), queue, name)
        except SpoolError:  # so that is no spool, or not one that can be used
            continue
    return None


def _put_right(command: str, words: list[str], position: int, inside: _Inside) -> list[str] | None:
    """Return the command line with the path taken apart; `None` if nothing can be meant by it."""
    before, after = words[:position], words[position + 1 :]
    if command in _QUEUE_NEXT:
        if inside.name is None:
            found = [inside.spool, inside.queue]
        elif command in {"ls", "stats"}:
            return ["show", inside.spool, inside.name]
        else:  # it would do to the whole queue what was meant for one entry
            return None
    elif command not in _NAMES_NEXT:
        found = [inside.spool]
    elif inside.name is not None:
        found = [inside.spool, inside.name]
    elif any(word.partition("=")[0] in _SELECTING for word in words):
        found = [inside.spool, "--from", inside.queue]  # or it would take from all queues
    else:
        found = [inside.spool]
    return [*command.split(), *before, *found, *after]
