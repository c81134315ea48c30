"""A proxy before a PostgreSQL server, which loses connections where it is told to, keeps silent, or lets nobody in.

It reads what clients send, so that it knows requests: what a client sends before it waits for an answer. So a test can
lose exactly the n-th. Connections that listen for notifications, as a keeper's does, are passed on and not counted.
"""

from __future__ import annotations

import contextlib
import enum
import selectors
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

_ENCRYPTION = (80877103, 80877104)  # SSLRequest, GSSENCRequest
_STEP = 0.002
"""How long the proxy waits before it looks at its orders again, in seconds."""


class Loss(enum.Enum):
    """How a connection is lost."""

    BEFORE = "before the request arrives"
    DURING = "while the request is worked on"
    ANSWER = "with the answer"
    AFTER = "after the answer"
    LATE = "and the request arrives while its client connects again"
    OVERDUE = "and the request arrives when its client has gone on"
    SILENCE = "before the request arrives, and nobody is told"


class _Messages:
    """Takes a stream apart into messages: a letter, a length that counts itself, and so many bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield those that are whole."""
        self._rest += data
        while len(self._rest) >= 5:
            end = 1 + int.from_bytes(self._rest[1:5], "big")
            if len(self._rest) < end:
                return
            message, self._rest = self._rest[:end], self._rest[end:]
            yield message


class _Pair:
    """A client, and its connection to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client: socket.socket | None = client
        self.server: socket.socket | None = server
        self.listens = False
        self.begun = False
        self.startup = b""
        self.from_client, self.from_server = _Messages(), _Messages()
        self.encryption_asked = False
        self.request: list[bytes] = []
        self.prepared: dict[bytes, str] = {}
        self.answers = 0
        self.then: Loss | None = None
        self.silent = False
        """Whether nothing is passed on any more."""
        self.held = b""
        """A request that has not been passed on, though its client thinks so, or is gone."""

    def sql(self) -> str:
        """Return the statement of the request, or the first of several."""
        for message in self.request:
            if message[:1] == b"Q":
                return message[5:-1].decode()
            if message[:1] == b"P":
                name, query, _ = message[5:].split(b"\0", 2)
                self.prepared[name] = query.decode()
        for message in self.request:
            if message[:1] == b"B":
                _, name, _ = message[5:].split(b"\0", 2)
                return self.prepared.get(name, "")
        return ""


class Point(NamedTuple):
    """Where a connection is to be lost: at which request since then, and how."""

    number: int
    loss: Loss


class Proxy:
    """The proxy, in a thread; put `with` around it. It listens at 127.0.0.1."""

    def __init__(self, host: str, port: int, *, at: str = "127.0.0.1") -> None:
        """Listen, before a server."""
        self._target = (host, port)
        self._listening = socket.create_server((at, 0), backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self._pairs: list[_Pair] = []
        self._selector = selectors.DefaultSelector()
        self._orders: list[Callable[[], None]] = []
        self._mutex = threading.Lock()
        self._over = False
        self._selector.register(self._listening, selectors.EVENT_READ, None)
        self.requests: list[str] | None = None
        """The statements that were asked for since `count`."""
        self._points: list[Point] = []
        self.lost = 0
        """How many connections were lost as they were told to be."""
        self.frozen = False
        """Whether it takes connections, and passes nothing on."""
        self.shut = False
        """Whether it lets nobody in."""
        self.shuts_then = False
        """Whether it lets nobody in once the last connection was lost that it was told to lose."""
        self.delay = 0.0
        """How much later answers come, in seconds."""
        self.chance: Callable[[], Loss | None] | None = None
        """Says of each request whether its connection is to be lost, and how."""
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, with all connections."""
        self._over = True
        self._thread.join()

    # Orders

    def _do(self, order: Callable[[], None]) -> None:
        """Have the thread do something, and wait for it."""
        done = threading.Event()

        def do() -> None:
            order()
            done.set()

        with self._mutex:
            self._orders.append(do)
        assert done.wait(60), "the proxy hangs"

    def count(self, *points: Point) -> None:
        """Count requests from now on; lose a connection at some of them."""

        def order() -> None:
            self.requests, self._points = [], [*points]

        self._do(order)

    def stop_counting(self) -> list[str]:
        """Count no more, and pass on what was held back; return what was asked for."""
        found: list[str] = []

        def order() -> None:
            found.extend(self.requests or ())
            self.requests, self._points = None, []
            self._pass_on_what_is_late()

        self._do(order)
        return found

    def cut_all(self) -> None:
        """Lose all connections."""
        self._do(lambda: [self._lose(pair) for pair in list(self._pairs)] and None)

    # In the thread

    def _run(self) -> None:
        while not self._over:
            with self._mutex:
                orders, self._orders = self._orders, []
            for order in orders:
                order()
            for key, _ in self._selector.select(_STEP):
                if key.data is None:
                    self._accept()
                elif not self.frozen and key.fileobj.fileno() >= 0:
                    self._read(key.data, key.fileobj)
            if self.frozen:
                time.sleep(_STEP)
        for pair in list(self._pairs):
            self._end(pair)
        self._listening.close()
        self._selector.close()

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        if self.shut:
            _reset(client)
            return
        try:
            server = socket.create_connection(self._target)
        except OSError:
            _reset(client)
            return
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(client, server)
        self._pairs.append(pair)
        for each in (client, server):
            self._selector.register(each, selectors.EVENT_READ, pair)

    def _read(self, pair: _Pair, source: Any) -> None:
        try:
            data = source.recv(1 << 20)
        except OSError:
            data = b""
        if source is pair.client:
            if data:
                self._hear(pair, data)
            elif pair.held:
                self._close(pair, "client")
            else:
                self._end(pair)
        elif data:
            self._answer(pair, data)
        else:
            self._end(pair)

    def _hear(self, pair: _Pair, data: bytes) -> None:
        """Take what a client says, and pass it on by requests."""
        if pair.silent:
            return
        if not pair.begun:
            pair.startup += data
            if len(pair.startup) < 8 or len(pair.startup) < int.from_bytes(pair.startup[:4], "big"):
                return
            code = int.from_bytes(pair.startup[4:8], "big")
            pair.begun = code not in _ENCRYPTION
            pair.encryption_asked = not pair.begun
            self._send(pair, pair.startup)
            pair.startup = b""
            return
        for message in pair.from_client.feed(data):
            pair.request.append(message)
            kind = message[:1]
            if kind in b"QS":
                self._request(pair)
            elif kind in b"HXp":
                self._send(pair, b"".join(pair.request))
                pair.request.clear()

    def _request(self, pair: _Pair) -> None:
        sql, raw = pair.sql(), b"".join(pair.request)
        pair.request.clear()
        pair.listens |= sql.startswith("LISTEN")
        loss = None if pair.listens else self._loss_of(sql)
        if loss is Loss.SILENCE:
            pair.silent = True
        elif loss is Loss.BEFORE:
            self._lose(pair)
        elif loss in (Loss.LATE, Loss.OVERDUE):
            pair.held, pair.then = raw, loss
            self._close(pair, "client")
        elif loss is Loss.DURING:
            self._send(pair, raw)
            self._lose(pair)
        else:
            pair.then = loss
            self._send(pair, raw)
        if "link AS link (owner" in sql:  # a client that has connected again
            self._pass_on_what_is_late(Loss.LATE)

    def _loss_of(self, sql: str) -> Loss | None:
        """Count a request; return how its connection is to be lost, if it is."""
        if self.requests is None:
            loss = None if self.chance is None else self.chance()
        else:
            self.requests.append(sql)
            [loss] = [each.loss for each in self._points if each.number == len(self.requests)] or [None]
            if loss is not None and self.shuts_then and len(self.requests) == max(each.number for each in self._points):
                self.shut = True
        self.lost += loss is not None
        return loss

    def _pass_on_what_is_late(self, *how: Loss) -> None:
        for pair in list(self._pairs):
            if pair.held and (not how or pair.then in how):
                raw, pair.held = pair.held, b""
                self._send(pair, raw)

    def _answer(self, pair: _Pair, data: bytes) -> None:
        """Take what the server says, and pass it on, or not."""
        if pair.silent:
            return
        if self.delay:
            time.sleep(self.delay)
        if pair.encryption_asked:
            pair.encryption_asked = False
            ready = False
        else:
            ready = any(message[:1] == b"Z" for message in pair.from_server.feed(data))
        if pair.client is not None and pair.then is not Loss.ANSWER:
            try:
                pair.client.sendall(data)
            except OSError:
                self._end(pair)
                return
        if ready and pair.then is not None and not pair.held:
            self._end(pair)

    def _send(self, pair: _Pair, raw: bytes) -> None:
        if pair.server is not None:
            try:
                pair.server.sendall(raw)
            except OSError:
                self._end(pair)

    def _lose(self, pair: _Pair) -> None:
        """End both, the client rudely."""
        if pair.client is not None:
            _linger(pair.client)
        self._end(pair)

    def _end(self, pair: _Pair) -> None:
        for end in ("client", "server"):
            self._close(pair, end)
        if pair in self._pairs:
            self._pairs.remove(pair)

    def _close(self, pair: _Pair, end: str) -> None:
        found: socket.socket | None = getattr(pair, end)
        if found is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(found)
            found.close()
            setattr(pair, end, None)


def _linger(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _reset(client: socket.socket) -> None:
    _linger(client)
    client.close()
