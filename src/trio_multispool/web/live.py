"""Server-sent events: a page that changes while somebody looks at it.

Each viewer is sent the newest page only, when its connection has taken the one before: nothing is kept for a viewer
that reads slowly, and one that does not read at all is let go. A stream ends after some minutes; the browser asks for
another, and so is let in anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import anyio

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from trio_multispool.web.shared import Body, Shared

MOST_STREAMS: Final = 256
"""How many viewers are served at a time."""

LONGEST: Final = 300.0
"""How many seconds a stream lasts."""

PATIENCE: Final = 30.0
"""How many seconds a viewer may take to receive what is sent."""

BEAT: Final = 15.0
"""After so many seconds without a change, something is sent that the browser passes over: so it can tell a silence."""


@final
class Streams:
    """All streams of an application."""

    def __init__(self) -> None:
        self.open: int = 0
        """How many there are."""
        self._ended = False
        self._scopes: set[anyio.CancelScope] = set()

    def end(self) -> None:
        """End all streams: the server stops."""
        self._ended = True
        for scope in [*self._scopes]:
            scope.cancel()

    def has_room(self) -> bool:
        """Tell whether one more is served."""
        return self.open < MOST_STREAMS and not self._ended


@final
class Stream:
    """The answer to one viewer: an ASGI application."""

    def __init__(self, streams: Streams, page: Shared[Body]) -> None:
        """Take the page that is to be sent, again and again."""
        self._streams = streams
        self._page = page
        self._gone = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the viewer has gone."""
        self._streams.open += 1
        try:
            async with anyio.create_task_group() as group:
                self._streams._scopes.add(group.cancel_scope)  # noqa: SLF001  # of one module
                try:
                    _ = group.start_soon(self._wait_for_the_end, receive, group.cancel_scope)
                    with anyio.move_on_after(LONGEST), self._page.watched():
                        await self._send_all(send)
                    group.cancel_scope.cancel()
                finally:
                    self._streams._scopes.discard(group.cancel_scope)  # noqa: SLF001  # as above
            if not self._gone:
                with anyio.move_on_after(PATIENCE):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.open -= 1

    async def _wait_for_the_end(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        scope.cancel()

    async def _send_all(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        number, sent = 0, ""
        if not await _take(send, b"retry: 2000\n\n"):
            return
        while True:
            told = b": still here\n\n"
            with anyio.move_on_after(BEAT):
                while True:
                    number, body = await self._page.after(number)
                    if body.html != sent:
                        told, sent = event(body.html), body.html
                        break
            if not await _take(send, told):
                return


async def _take(send: Send, told: bytes) -> bool:
    """Send something; `False`: the viewer does not take it."""
    with anyio.move_on_after(PATIENCE):
        await send({"type": "http.response.body", "body": told, "more_body": True})
        return True
    return False


def event(body: str) -> bytes:
    """Return a text as an event. A line break in it begins a new line of data, whatever kind it is."""
    lines = body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return ("".join(f"data: {line}\n" for line in lines) + "\n").encode()
