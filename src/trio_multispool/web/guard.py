"""Who may ask what: every request passes here first, and every answer gets its headers here.

Theory. A browser sends what a page of another site makes it send, to any address that it can reach, with the cookies
that it has for it. So three things are checked:

- *the name*: `Host` must be one that this server goes by. A foreign name that is made to point here ("DNS rebinding")
  would otherwise be of the same origin as its own page, which could read everything.
- *the page*: `Origin`, where there is one, must be this server, and so must `Sec-Fetch-Site` be, unless a person
  follows a link. A change needs one of the two. (Another port of this host is the same *site*: its pages send our
  cookie, whatever `SameSite` says.)
- *the person*: by the token in a cookie, or by the program's own login.

A change also needs a token in its form, which only a page of ours has: it is made from the cookie, which no page can
read.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request

from trio_multispool.clock import new_secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, and nothing that stands in a page: no script, no style, no frame."""

HEADERS: Final = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",  # with `no-referrer`, browsers send `Origin: null` with our own forms
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
"""The names of this host that no other host can go by."""

_SAFE: Final = frozenset({"GET", "HEAD"})
_OURS: Final = frozenset({"same-origin", "none"})
_CSRF_COOKIE: Final = "multispool_form"
_OPEN: Final = ("/static/",)
"""What anybody may read who knows the name: it says nothing about any spool."""


class Access(enum.Enum):
    """What somebody may do."""

    REFUSED = "refused"
    """Nothing."""
    LOOK = "look"
    """See all pages."""
    ACT = "act"
    """Look, and act where the application allows actions at all."""


class Authorize(Protocol):
    """Says what who makes a request may do."""

    def __call__(self, request: Request, /) -> Access | Awaitable[Access]:
        """Return it, or what it is awaited for."""
        ...


class Visitor(NamedTuple):
    """Who makes a request."""

    access: Access
    form_token: str
    """What a form needs that changes something."""


@final
class Token:
    """A secret that is made at the start: who has it may look, and act."""

    def __init__(self, secret: str | None = None) -> None:
        """Make it, or take one that was made before."""
        self.secret: Final = new_secret() if secret is None else secret
        # Cookies do not keep ports apart: two dashboards on one host must not overwrite each other's.
        self.cookie: Final = f"multispool_{hashlib.sha256(self.secret.encode()).hexdigest()[:12]}"

    def is_right(self, given: str) -> bool:
        """Compare, in a time that tells nothing."""
        return hmac.compare_digest(given.encode(errors="replace"), self.secret.encode())

    def __call__(self, request: Request, /) -> Access:
        """Let in who has the cookie."""
        return Access.ACT if self.is_right(request.cookies.get(self.cookie, "")) else Access.REFUSED


class Refused(Exception):
    """A request that is not answered, and why, for a person."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status: int = status
        self.why: str = why


def form_token_for(cookie: str) -> str:
    """Return what forms have that are sent to who has this cookie."""
    return hmac.new(cookie.encode(errors="replace"), b"form", hashlib.sha256).hexdigest()


def cookie_header(name: str, value: str, request: Request) -> str:
    """Return the header that sets a cookie which no script can read, and which no other site makes a browser send."""
    path = (request.scope.get("root_path", "") or "").rstrip("/") + "/"
    secure = "; Secure" if request.url.scheme == "https" else ""
    return f"{name}={value}; Path={path}; HttpOnly; SameSite=Strict{secure}"


def host_of(header: str) -> str | None:
    """Return the name in a `Host` header, in small letters and without its port; `None` if it is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Tell whether only this host can ask at that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@final
class Guard:
    """An ASGI application around another one, which it keeps from all who must not ask."""

    def __init__(
        self,
        inner: ASGIApp,
        authorize: Authorize,
        *,
        hosts: Collection[str] | None,
        refuse: Callable[[Request, Refused], ASGIApp],
    ) -> None:
        """Take what answers, who may ask, by which names (`None`: by any), and what says that somebody may not."""
        self._inner = inner
        self._authorize = authorize
        self._hosts = None if hosts is None else frozenset(host.lower().strip("[]") for host in hosts)
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket: there is none
            await send({"type": "websocket.close", "code": 1008})
            return
        request, cookies = Request(scope, receive), list[str]()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                _ = headers.setdefault("cache-control", "no-store")
                for cookie in cookies:
                    headers.append("set-cookie", cookie)
            await send(message)

        try:
            self._check_place(request)
            visitor = await self._visitor(request, cookies)
        except Refused as refused:
            await self._refuse(request, refused)(scope, receive, send_with_headers)
            return
        scope["multispool.visitor"] = visitor
        await self._inner(scope, receive, send_with_headers)

    def _check_place(self, request: Request) -> None:
        """Check which name was asked for, and which page asks."""
        headers = request.headers
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or (self._hosts is not None and host_of(host) not in self._hosts):
            raise Refused(421, "This dashboard does not go by the name that was asked for; --host NAME adds one.")
        if request.method not in _SAFE and request.method != "POST":
            raise Refused(405, "There is nothing to be asked in this way.")
        origin, fetched = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and not _is_origin(origin, host):
            raise Refused(403, "A page from elsewhere has asked, which must not.")
        if fetched is not None and fetched not in _OURS and not _follows_a_link(request.method, headers):
            raise Refused(403, "A page from elsewhere has asked, which must not.")
        if request.method not in _SAFE and origin is None and fetched is None:
            raise Refused(403, "It is not known which page has asked, so nothing was done.")

    async def _visitor(self, request: Request, cookies: list[str]) -> Visitor:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if path.startswith(_OPEN) or (isinstance(self._authorize, Token) and path == "/enter"):
            return Visitor(Access.REFUSED, "")
        allowed = self._authorize(request)
        access = allowed if isinstance(allowed, Access) else await allowed
        if access not in {Access.LOOK, Access.ACT}:
            raise Refused(401, "It is not known who you are.")
        if isinstance(self._authorize, Token):
            return Visitor(access, form_token_for(self._authorize.secret))
        cookie = request.cookies.get(_CSRF_COOKIE, "")
        if not cookie:
            cookie = new_secret()
            cookies.append(cookie_header(_CSRF_COOKIE, cookie, request))
        return Visitor(access, form_token_for(cookie))


def _is_origin(origin: str, host: str) -> bool:
    """Tell whether an `Origin` is that of a page which was asked for by this `Host`."""
    scheme, _, place = origin.partition("://")
    return scheme in {"http", "https"} and place.lower() == host.lower()


def _follows_a_link(method: str, headers: Headers) -> bool:
    """Tell whether a person goes to a page from elsewhere: it is shown by itself, and its sender cannot read it."""
    return (
        method in _SAFE and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )


def visitor_of(request: Request) -> Visitor:
    """Return who makes a request that has passed."""
    visitor: Visitor = request.scope["multispool.visitor"]
    return visitor


def check_form(request: Request, given: str) -> None:
    """Check what a form has brought; raises `Refused`."""
    visitor = visitor_of(request)
    if visitor.access is not Access.ACT:
        raise Refused(403, "You may look, and not act.")
    if not hmac.compare_digest(given.encode(errors="replace"), visitor.form_token.encode()):
        raise Refused(403, "This form is not of this session, so nothing was done. Go back, reload, and try again.")
