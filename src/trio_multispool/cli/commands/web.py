"""`multispool web`: a dashboard for spools, in the browser."""

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli import durations, output
from trio_multispool.cli.arguments import Location
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.spools import looking
from trio_multispool.events import LOGGER

_BACKLOG = 128


def web(  # noqa: PLR0913  # what a person can say on the command line
    spool: Location,
    /,
    *spools: Annotated[str, Parameter(name="SPOOL", help="Further spools.")],
    bind: Annotated[
        str, Parameter(help="Where to listen: `HOST:PORT`, or `unix:PATH` for a UNIX socket.")
    ] = "127.0.0.1:8765",
    host: Annotated[
        list[str] | None,
        Parameter(
            help="A name by which browsers ask for it, if it is not this host's own: a proxy's. May be repeated."
        ),
    ] = None,
    prefix: Annotated[str, Parameter(help="The path below which a proxy shows it: `/queues`.")] = "",
    allow_actions: Annotated[
        bool,
        Parameter(
            help="Allow to retry, move, remove, cancel and put back entries, and to pause queues; else one only looks."
        ),
    ] = False,
    redact: Annotated[
        list[str] | None,
        Parameter(help="A field of metadata, or of data that is JSON, whose value nobody is shown. May be repeated."),
    ] = None,
    every: Annotated[str, Parameter(help="How often to look, at most: `1`, `5`, `1m`.")] = "2s",
    check_every: Annotated[
        str,
        Parameter(help="How often the monitor looks, at most; `0`: never. It locks what it suspects, for a moment."),
    ] = "15s",
) -> None:
    """Show spools in the browser: queues, entries, dead letters, quarantine, problems.

    Prints the address, with a token that is made anew at each start: who has it may look. It listens on this host only,
    unless `--bind` says otherwise; then put a proxy with TLS in front of it.

    It only looks, as `top` does: nothing is recovered or written, and a spool that takes long to look at is looked at
    less often. All who look at a page share one look, and while nobody does, there is none.

    With `--allow-actions`, entries can be retried, moved, removed, cancelled and put back from quarantine, one or many,
    and queues can be paused. What would be done is shown first. Each action is logged.

    Needs the extra `web`.

    ```console
    $ multispool web var/mail
    $ multispool web /srv/photos 'postgresql://work@db/work?spool=mail' --allow-actions --redact password
    ```
    """
    try:
        from trio_multispool.web import application, serving  # noqa: PLC0415  # the extra may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("trio_multispool"):
            raise
        how = 'python -m pip install "trio-multispool[cli,web]"'
        raise Failure(
            f"the module {error.name} is missing; this command needs the extra `web`: {how}", Exit.USAGE
        ) from error
    try:
        where = serving.Bind.parse(bind)
    except ValueError as error:
        raise Failure(f"--bind: {error}", Exit.USAGE) from error
    interval, check_interval = durations.parse(every), durations.parse(check_every)
    if interval < serving.FASTEST:
        raise Failure(f"--every must be at least {serving.FASTEST} seconds, not {every}", Exit.USAGE)
    locations = [spool, *spools]
    for each in locations:  # a mistake is told here, and not in the browser
        with looking(each):
            pass
    if not where.is_here:
        output.complain(f"warning: {where.host} can be reached from elsewhere; put a proxy with TLS in front of it")
    LOGGER.setLevel(logging.INFO)  # what a person does is told, line by line
    settings = application.Settings(allow_actions, frozenset(redact or ()), every=interval, check_every=check_interval)
    place = serving.Place(where, prefix, tuple(host or ()))
    with _listening(where.host, where.port, where.socket) as listener:
        serving.serve(locations, listener, place, settings, output.line)


@contextlib.contextmanager
def _listening(host: str, port: int, path: str | None) -> Generator[socket.socket]:
    """Yield a socket that is bound; one in the file system is for this user alone."""
    try:
        listener = _bound(host, port) if path is None else _bound_at(path)
    except OSError as error:
        where = path or f"{host}:{port}"
        raise Failure(f"cannot listen on {where}: {error.strerror or error}") from error
    with listener:
        try:
            yield listener
        finally:
            if path is not None:
                Path(path).unlink(missing_ok=True)


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _bound_at(path: str) -> socket.socket:
    place = Path(path)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(place.lstat().st_mode) and not _answers(path):  # a server that was killed has left it
            place.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        _ = os.umask(umask)
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(path)
        except OSError:
            return False
    return True
