"""Open a store by its location. Here, and nowhere else, a location becomes a kind of store.

A location is the path of a spool's directory. One that looks like a URL (`SCHEME://…`) belongs to a kind of store that
this library does not have, and is refused: as a path, it would make a directory called `SCHEME:`. So is `SCHEME:/…`,
which `pathlib` makes of a URL.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Concatenate, Final, NamedTuple, ParamSpec, cast

from trio_multispool.errors import NotASpool
from trio_multispool.storage.directory.disk.syscalls import SystemCalls
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.model.types import StrPath
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.requests import Recovered

__all__ = ["Opened", "SystemCalls", "is_directory", "look_at_store", "open_store", "open_store_unsafe"]

P = ParamSpec("P")

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?:/|$)")
_PASSWORD: Final = re.compile(r"((?<=:/)/?[^/@:]*:).*(?=@)|(\bpassword=)[^&]*")


class Opened(NamedTuple):
    """A store that was opened, and what recovery did then."""

    storage: Storage[Any, Any]
    recovered: list[Recovered]


def _opening(
    open_directory: Callable[Concatenate[str, P], DirectoryStorage],
) -> Callable[Concatenate[StrPath, P], Opened]:
    """Return a function that opens a store by its location, as another does by the path of its directory."""

    def open_by_location(location: StrPath, /, *args: P.args, **how: P.kwargs) -> Opened:
        storage = open_directory(_directory(location), *args, **how)
        return Opened(storage, storage.recovered_at_first)

    return open_by_location


open_store: Final = _opening(DirectoryStorage.open)
"""Open a store with some queues; see `DirectoryStorage.open`."""

open_store_unsafe: Final = _opening(DirectoryStorage.open_unsafe)
"""Open a store without checking that it is one, and without recovering anything."""


def look_at_store(location: StrPath) -> Storage[Any, Any]:
    """Open a store to look at it: recovers nothing, and writes nothing."""
    return DirectoryStorage.look(_directory(location))


def is_directory(location: str) -> bool:
    """Tell whether a location is the path of a directory, and not a URL."""
    return _URL.match(location) is None


def _directory(location: StrPath) -> str:
    """Return the path of a directory. Raises `NotASpool` for a URL, and `TypeError` for what is no path."""
    fspath = cast("Callable[[], object]", getattr(location, "__fspath__", lambda: location))
    path = fspath()
    if not isinstance(path, str):
        raise TypeError(f"the path of a spool is a string or a pathlib.Path, not {location!r}")
    scheme = _URL.match(path)
    if scheme is None:
        return path
    told = _PASSWORD.sub(r"\1\2…", path)
    reason = f"no store answers to {scheme[1]}: locations; give the path of a directory"
    raise NotASpool(told, reason)
