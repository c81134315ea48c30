"""The three system calls that commit a step (see `model/lifecycle.py`), and how to tell the outcome when one fails.

Each returns `False` if the file that it needs is missing. It raises a `SpoolError` if it had no effect for another
reason. An error such as EIO does not say whether the rename took place. So the function looks at both ends, under the
entry's lock, before it answers.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from trio_multispool.errors import NameTaken, SpoolError, StorageFailure
from trio_multispool.storage.directory.disk.oserrors import as_spool_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.storage.directory.disk.layout import Layout

_CERTAIN: Final = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV, errno.ELOOP, errno.ENAMETOOLONG, errno.EBADF}
"""Errors that come before any effect. After all others, the outcome is looked up."""


class CommitUnknown(StorageFailure):
    """The call failed, and its outcome could not be looked up. Nothing may be undone; recovery will decide."""


def move(  # noqa: PLR0913  # two names in two directories
    layout: Layout, name: str, source: str, target: str, new_name: str | None = None, *, again: bool = True
) -> bool:
    """Move a file to another directory, under its name or a new one. Never replaces a file: raises `NameTaken`.

    With `again`, tries once more if the file is not gone but one of the directories was replaced by another on disk.
    """
    held, new_name = layout.fds.get, name if new_name is None else new_name
    try:
        layout.calls.move(name, held(source) or _fd(layout, source), new_name, held(target) or _fd(layout, target))
    except FileNotFoundError:
        replaced = [layout.refresh(directory) for directory in (source, target)] if again else []
        if any(replaced):
            return move(layout, name, source, target, new_name, again=False)
        if layout.holds(source, name):
            missing = FileNotFoundError(errno.ENOENT, "the target directory is missing")
            raise as_spool_error(missing, "move", layout.full(source, name)) from missing
        return False
    except FileExistsError as error:
        raise NameTaken(new_name) from error
    except OSError as error:
        _unless(
            error,
            layout.full(source, name),
            "move",
            lambda: not layout.holds(source, name) and layout.holds(target, new_name),
        )
    return True


def _fd(layout: Layout, directory: str) -> int:
    """Return the descriptor of a directory. If it cannot be opened, there was no effect; a missing one is told so."""
    try:
        return layout.fds[directory]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise as_spool_error(error, "open", layout.full(directory)) from error


def exchange(layout: Layout, temporary: tuple[str, str], directory: str, name: str) -> bool:
    """Exchange a new file with an existing one. Afterwards the old file has the new one's name."""
    calls = layout.calls
    new_directory, new_name = temporary
    with layout.doing("look at", new_directory, new_name):
        new_fd = layout.fds[new_directory]
        new = calls.stat(new_name, new_fd).st_ino
    try:
        calls.exchange(new_name, new_fd, name, _fd(layout, directory))
    except FileNotFoundError:
        return False
    except OSError as error:
        _unless(
            error,
            layout.full(directory, name),
            "exchange",
            lambda: calls.stat(name, layout.fds[directory]).st_ino == new,
        )
    return True


def unlink(layout: Layout, directory: str, name: str) -> bool:
    """Unlink a file."""
    try:
        layout.calls.unlink(name, layout.fds.get(directory) or _fd(layout, directory))
    except FileNotFoundError:
        return False
    except OSError as error:
        _unless(error, layout.full(directory, name), "remove", lambda: not layout.holds(directory, name))
    return True


def _unless(error: OSError, path: str, operation: str, took_place: Callable[[], bool]) -> None:
    """Raise the `SpoolError` for `error`, unless the call took place; raise `CommitUnknown` if that cannot be seen."""
    told = as_spool_error(error, operation, path)
    if error.errno in _CERTAIN:
        raise told from error
    try:
        if took_place():
            return
    except (OSError, SpoolError) as unseen:
        raise CommitUnknown(operation, path, error.errno or 0) from unseen
    raise told from error
