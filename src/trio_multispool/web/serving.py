"""Serving the dashboard by itself, with uvicorn: where it listens, by which names it goes, and behind which prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from urllib.parse import quote

import uvicorn

from trio_multispool.web.application import Dashboard, Settings
from trio_multispool.web.guard import LOOPBACK, Token, host_of, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from trio_multispool.model.types import StrPath

PORT: Final = 8765
"""Unless somebody says otherwise."""

FASTEST: Final = 0.5
"""How often a spool is looked at, at most, in seconds."""

_LARGEST_PORT: Final = 65535


class Bind(NamedTuple):
    """Where a server listens."""

    host: str = "127.0.0.1"
    port: int = PORT
    socket: str | None = None
    """The path of a UNIX socket, instead."""

    @classmethod
    def parse(cls, text: str) -> Bind:
        """Understand `HOST:PORT`, `:PORT`, `HOST`, or the path of a socket, `unix:PATH`; raises `ValueError`."""
        if text.startswith("unix:"):
            if text == "unix:":
                raise ValueError("unix: wants the path of a socket")
            return cls(socket=text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or text.endswith("]"):
            host, port = text, str(PORT)
        if not port.isdecimal() or int(port) > _LARGEST_PORT:
            raise ValueError(f"a port is a number up to {_LARGEST_PORT}, not {port!r}")
        return cls(host.strip("[]") or cls().host, int(port))

    @property
    def is_here(self) -> bool:
        """Whether nobody from elsewhere can reach it."""
        return self.socket is not None or is_loopback(self.host)


@final
class Prefixed:
    """An application below a path, whether the proxy in front of it takes that path away or not."""

    def __init__(self, inner: ASGIApp, prefix: str) -> None:
        """Take the path, as `/queues`; an empty one is none."""
        self._inner = inner
        self._prefix = "/" + prefix.strip("/") if prefix.strip("/") else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer below the path."""
        if scope["type"] != "lifespan" and self._prefix:
            path = scope["path"]
            if path != self._prefix and not path.startswith(f"{self._prefix}/"):
                path = self._prefix + path
            elif path == self._prefix:
                path += "/"
            scope = {**scope, "path": path, "root_path": self._prefix}
        await self._inner(scope, receive, send)


@final
class Server(uvicorn.Server):
    """A server that says so once it listens, and ends all streams when it is to stop."""

    def __init__(self, config: uvicorn.Config, dashboard: Dashboard, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._dashboard = dashboard
        self._tell = started

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            self._tell()

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Stop. No stream ends by itself."""
        self._dashboard.close()
        await super().shutdown(sockets)


class Place(NamedTuple):
    """Where a dashboard is served, and by which names browsers ask for it."""

    bind: Bind
    prefix: str = ""
    names: tuple[str, ...] = ()
    """Further names, that of a proxy for example."""

    @property
    def hosts(self) -> frozenset[str]:
        """All names, without ports."""
        return LOOPBACK | {self.bind.host} | {host_of(name) or name for name in self.names}

    def address(self, port: int, secret: str) -> str:
        """Return where a browser enters."""
        prefix = self.prefix.strip("/")
        path = f"{'/' + prefix if prefix else ''}/enter?token={quote(secret)}"
        if self.names:
            return f"https://{self.names[0]}{path}"
        if self.bind.socket is not None:
            return f"http://localhost{path}"
        return f"http://{f'[{self.bind.host}]' if ':' in self.bind.host else self.bind.host}:{port}{path}"


def serve(
    spools: Sequence[StrPath],
    listener: Any,  # noqa: ANN401  # a socket; this room imports no module that makes one
    place: Place,
    settings: Settings,
    started: Callable[[str], None],
) -> None:
    """Serve on a socket that is bound, until a signal comes. `started` is told where to enter, once it listens."""
    token = Token()
    dashboard = Dashboard(spools, token, settings._replace(hosts=place.hosts))
    config = uvicorn.Config(
        Prefixed(dashboard.guarded, place.prefix),
        access_log=False,  # it would have the token in it
        log_config=None,
        log_level="warning",
        loop="asyncio",
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=5,
        forwarded_allow_ips="*" if place.bind.socket is not None else "127.0.0.1,::1",
    )
    port = 0 if place.bind.socket is not None else int(listener.getsockname()[1])
    Server(config, dashboard, lambda: started(place.address(port, token.secret))).run([listener])
