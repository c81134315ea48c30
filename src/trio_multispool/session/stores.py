"""Open a store by its location. Here, and nowhere else, a location becomes a kind of store.

A location is the path of a spool's directory, or the URL of one on a PostgreSQL server: `postgresql://…`. Any other URL
(`SCHEME://…`) belongs to a kind of store that this library does not have, and is refused: as a path, it would make a
directory called `SCHEME:`. So is `SCHEME:/…`, which `pathlib` makes of a URL.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, NamedTuple, ParamSpec, cast

from trio_multispool.errors import NotASpool
from trio_multispool.storage.directory.disk.syscalls import SystemCalls
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trio_multispool.model.types import StrPath
    from trio_multispool.storage.postgres.store import PostgresStorage
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.requests import Recovered

__all__ = [
    "Opened",
    "SystemCalls",
    "is_directory",
    "location_of",
    "look_at_store",
    "open_store",
    "open_store_unsafe",
    "script_for",
    "without_secrets",
]

P = ParamSpec("P")

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?:/|$)")
_SERVER: Final = re.compile("postgres(?:ql)?://")
_PASSWORD: Final = re.compile(r"((?<=:/)/?[^/@:]*:).*(?=@)|(\bpassword=)[^&]*")

_OF_DIRECTORIES: Final = {
    "adopted": ("adopted", True),
    "mode": ("directory_mode", 0o700),
    "trust_file_system": ("trust_file_system", False),
    "calls": ("system_calls", None),
}
"""What can be said of a directory alone: how it is called in public, and what it is if nothing is said."""


class Opened(NamedTuple):
    """A store that was opened, and what recovery did then."""

    storage: Storage[Any, Any]
    recovered: list[Recovered]


def _opening(
    open_directory: Callable[Concatenate[str, P], DirectoryStorage], on_a_server: str
) -> Callable[Concatenate[StrPath, P], Opened]:
    """Return a function that opens a store by its location, as another does by the path of its directory."""

    def open_by_location(location: StrPath, /, *args: P.args, **how: P.kwargs) -> Opened:
        text = _text(location)
        storage: DirectoryStorage | PostgresStorage
        if _SERVER.match(text):
            open_it = getattr(_kind_on_a_server(), on_a_server)
            storage = cast("PostgresStorage", open_it(text, *args, **_for_a_server(how)))
        else:
            storage = open_directory(_directory(text), *args, **how)
        return Opened(storage, storage.recovered_at_first)

    return open_by_location


open_store: Final = _opening(DirectoryStorage.open, "open")
"""Open a store with some queues; see `DirectoryStorage.open`."""

open_store_unsafe: Final = _opening(DirectoryStorage.open_unsafe, "open_unsafe")
"""Open a store without checking that it is one, and without recovering anything."""


def look_at_store(location: StrPath) -> Storage[Any, Any]:
    """Open a store to look at it: recovers nothing, and writes nothing."""
    text = _text(location)
    return _kind_on_a_server().look(text) if _SERVER.match(text) else DirectoryStorage.look(_directory(text))


def script_for(location: str, since: int) -> str:
    """Return the SQL that makes the tables of a spool on a server, or brings those of a version up to date.

    Asks no server. Raises `NotASpool` if the location is not on one, and `ValueError` for a version that there is none
    of.
    """
    if not _SERVER.match(location):
        raise NotASpool(without_secrets(location), "only a spool on a PostgreSQL server has tables: postgresql://…")
    with _its_extra():
        from trio_multispool.storage.postgres.address import Address  # noqa: PLC0415  # the extra may be missing
        from trio_multispool.storage.postgres.schema import script  # noqa: PLC0415  # the same
    return script(Address.parse(location).schema, since)


def location_of(location: StrPath) -> str:
    """Return a location as its store tells it: absolute, and without a password. Opens nothing."""
    text = _text(location)
    if not _SERVER.match(text):
        return str(Path(text).absolute())
    with _its_extra():
        from trio_multispool.storage.postgres.address import Address  # noqa: PLC0415  # the extra may be missing
    return Address.parse(text).location


def without_secrets(location: StrPath) -> str:
    """Return a location for a message: of a URL, no more than how it begins, because it may hold a password."""
    text = _text(location)
    url = _URL.match(text)
    return text if url is None else f"{url[1]}://…"


def is_directory(location: str) -> bool:
    """Tell whether a location is the path of a directory, and not a URL."""
    return _URL.match(location) is None


def _text(location: StrPath) -> str:
    """Return a location as text. Raises `TypeError` for what is none."""
    fspath = cast("Callable[[], object]", getattr(location, "__fspath__", lambda: location))
    text = fspath()
    if not isinstance(text, str):
        raise TypeError(f"the path of a spool is a string or a pathlib.Path, not {location!r}")
    return text


def _kind_on_a_server() -> type[PostgresStorage]:
    with _its_extra():
        from trio_multispool.storage.postgres.store import PostgresStorage  # noqa: PLC0415  # the extra may be missing
    return PostgresStorage


@contextlib.contextmanager
def _its_extra() -> Generator[None]:
    """Surround the import of what needs the extra: a `ModuleNotFoundError` says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        how = 'python -m pip install "trio-multispool[postgresql]"'
        message = f"the module {error.name} is missing, which a spool on a PostgreSQL server needs: {how}"
        raise ModuleNotFoundError(message, name=error.name) from error


def _for_a_server(how: dict[str, Any]) -> dict[str, Any]:
    """Return what can be said of any store. Raises `TypeError` if something is said of a directory."""
    for key, (name, default) in _OF_DIRECTORIES.items():
        if how.get(key, default) != default:
            raise TypeError(f"{name} is about directories, and this spool is on a server")
    return {key: value for key, value in how.items() if key not in _OF_DIRECTORIES}


def _directory(location: str) -> str:
    """Return the path of a directory. Raises `NotASpool` for a URL."""
    scheme = _URL.match(location)
    if scheme is None:
        return location
    told = _PASSWORD.sub(r"\1\2…", location)
    if scheme[1].startswith("postgres"):
        raise NotASpool(told, "give the URL as a string: a path keeps only one of its slashes")
    reason = f"no store answers to {scheme[1]}: locations; give the path of a directory, or postgresql://…"
    raise NotASpool(told, reason)
