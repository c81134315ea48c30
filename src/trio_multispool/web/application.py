"""`app`: the dashboard as an ASGI application, and the paths that it answers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, final
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from trio_multispool.errors import DataNotFound, SpoolError
from trio_multispool.looks.ages import human_size, human_time
from trio_multispool.model.times import aware
from trio_multispool.web import actions, entry_page, pages, shown
from trio_multispool.web.forms import back_to, first, form_of, task_of
from trio_multispool.web.guard import Access, Guard, Refused, Token, check_form, cookie_header, visitor_of
from trio_multispool.web.live import Stream, Streams
from trio_multispool.web.pages import Asked, Context
from trio_multispool.web.shared import Body, Shared
from trio_multispool.web.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from trio_multispool.model.types import StrPath
    from trio_multispool.web.guard import Authorize

LOGGER: Final = logging.getLogger("trio_multispool.web")

EVERY: Final = 2.0
"""How often a spool is looked at while somebody watches, in seconds, at most."""

CHECK_EVERY: Final = 15.0
"""How often the monitor looks then."""

SHARE: Final = 0.03
"""Which share of the time looks at a spool take at most, and likewise what all pages together ask besides.

So workers that use two processors whole keep 97 in a hundred of them."""

_LONGEST_PARAMETER: Final = 300
_STATIC: Final = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

Finder = Callable[[Watched, Asked], Awaitable[Context]]


def app(  # noqa: PLR0913  # keyword arguments, each with a default
    spools: Sequence[StrPath] | StrPath,
    *,
    authorize: Authorize,
    allow_actions: bool = False,
    redact: Collection[str] = (),
    hosts: Collection[str] | None = None,
    every: float = EVERY,
    check_every: float = CHECK_EVERY,
) -> ASGIApp:
    """Return the dashboard as an ASGI application, to be mounted behind a program's own login.

    - `spools`: the directories, or URLs, of one or several spools.
    - `authorize`: is given each request (Starlette's), and returns what its sender may do, or is awaited for it:
      `Access.REFUSED`, `Access.LOOK`, or `Access.ACT`. It is asked for each page, and each stream of changes.
    - `allow_actions`: whether those who may act can retry, move, remove, cancel and restore entries, and pause queues.
    - `redact`: fields of metadata, and of data that is JSON, whose values nobody is shown. Data that is no JSON is then
      not shown at all. What handlers raised is: a message may have anything in it.
    - `hosts`: the names by which browsers may ask for it, without ports. By default any: a login's cookie belongs to a
      name, so that a foreign name that is made to point here has none.
    - `every`, `check_every`: in seconds, how often to look, and to let the monitor look, at most; 0: the monitor does
      not look. A spool is looked at while somebody watches it, once for all of them.

    It answers below the path at which it is mounted. A request that another site's page has made is refused, and each
    change needs a token that is in the dashboard's forms. It runs on Trio and on asyncio, and needs no lifespan.

    Needs the extra `web`; without it, the import raises `ModuleNotFoundError`, which says so.

    ```python
    async def authorize(request: Request) -> Access:
        return Access.ACT if request.session.get("role") == "operator" else Access.REFUSED


    routes = [Mount("/queues", app("var/mail", authorize=authorize, allow_actions=True))]
    ```
    """
    given: list[StrPath] = [*spools] if isinstance(spools, Sequence) and not isinstance(spools, str) else [spools]
    return Dashboard(
        given,
        authorize,
        Settings(allow_actions, frozenset(redact), None if hosts is None else frozenset(hosts), every, check_every),
    ).guarded


class Settings(NamedTuple):
    """What can be said of a dashboard."""

    allow_actions: bool = False
    redact: frozenset[str] = frozenset()
    hosts: frozenset[str] | None = None
    every: float = EVERY
    check_every: float = CHECK_EVERY
    share: float = SHARE


@final
class Dashboard:
    """The application, its spools, and its templates."""

    def __init__(self, spools: Sequence[StrPath], authorize: Authorize, settings: Settings) -> None:
        """Open nothing yet: a spool may come later, and go."""
        if not spools:
            raise ValueError("a dashboard wants at least one spool")
        self.streams: Final = Streams()
        self.watched: Final = [
            Watched(
                each,
                every=settings.every,
                check_every=settings.check_every,
                share=settings.share,
                hidden=settings.redact,
            )
            for each in spools
        ]
        self._authorize = authorize
        self._settings = settings
        self._templates = _templates()
        self._static = {name: _packaged(name) for name in _STATIC}
        inner = Starlette(routes=self._routes(), lifespan=self._lifespan, exception_handlers=self._handlers())
        self.guarded: Final[ASGIApp] = Guard(inner, authorize, hosts=settings.hosts, refuse=self._refuse)

    def _routes(self) -> list[Route]:
        found = [
            Route("/", self._all),
            Route("/static/{name}", self._static_file),
            Route("/{spool:int}/", self._page(lambda _path: pages.overview, "overview.html")),
            Route("/{spool:int}/dead", self._page(lambda _path: pages.letters, "letters.html")),
            Route("/{spool:int}/held", self._page(lambda _path: pages.held, "listed.html")),
            Route("/{spool:int}/quarantine", self._page(lambda _path: pages.quarantine, "listed.html")),
            Route("/{spool:int}/problems", self._page(lambda _path: pages.problems, "problems.html")),
            Route("/{spool:int}/queue/{name}", self._page(_named(pages.queue), "queue.html")),
            Route("/{spool:int}/entry/{name}", self._page(_named(entry_page.entry), "entry.html")),
            Route("/{spool:int}/entry/{name}/data", self._download),
            Route("/{spool:int}/entry/{name}/picture", self._picture),
            Route("/{spool:int}/act", self._act, methods=["POST"]),
        ]
        if isinstance(self._authorize, Token):
            found.append(Route("/enter", self._enter, methods=["GET", "POST"]))
        return found

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """End all streams, and free what is open."""
        self.streams.end()
        for each in self.watched:
            each.close()

    # Pages

    def _asked(self, request: Request, spool: int) -> Asked:
        parameters = {key: value[:_LONGEST_PARAMETER] for key, value in request.query_params.items() if key != "still"}
        may_act = self._settings.allow_actions and visitor_of(request).access is Access.ACT
        root = cast("str", request.scope.get("root_path", "")).rstrip("/")
        return Asked(spool, root, may_act, self._settings.redact, parameters)

    def _page(self, finder: Callable[[dict[str, Any]], Finder], template: str) -> Callable[..., Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            number = cast("int", request.path_params["spool"])
            if number >= len(self.watched):
                raise Refused(404, "There is no such spool.")
            watched, asked, find = self.watched[number], self._asked(request, number), finder(request.path_params)

            async def body() -> Body:
                try:
                    context = await find(watched, asked)
                except LookupError as why:
                    _, context = await pages.base(watched, asked, "")
                    context |= {"title": "Not there", "why": str(why.args[0])}
                    return self._body("missing.html", context, 404)
                return self._body(template, context)

            key = (template, request.scope["path"], tuple(sorted(asked.parameters.items())), asked.may_act, asked.root)
            return await self._shown(request, asked, watched.page(key, body))

        return answer

    async def _all(self, request: Request) -> Response:
        """Show all spools; of one, its overview."""
        asked = self._asked(request, 0)

        async def body() -> Body:
            parts = [await pages.overview(each, asked._replace(spool=at)) for at, each in enumerate(self.watched)]
            if len(parts) == 1:
                return self._body("overview.html", parts[0])
            return self._body("all.html", parts[0] | {"parts_": parts, "title": f"{len(parts)} spools", "here": "all"})

        page = self.watched[0].page(("all", asked.may_act, asked.root), body)
        return await self._shown(request, asked, page)

    def _body(self, template: str, context: Context, status: int = 200) -> Body:
        context = {"several": len(self.watched) > 1, **context}
        if context.get("trouble") and not context["seen"]:
            status = 503
        return Body(self._templates.get_template(template).render(context), context["title"], status)

    async def _shown(self, request: Request, asked: Asked, page: Shared[Body]) -> Response:
        if "text/event-stream" in request.headers.get("accept", ""):
            if not self.streams.has_room():
                return Response("too many viewers\n", 503, media_type="text/plain")
            return cast("Response", cast("object", Stream(self.streams, page)))
        return self._whole(request, asked, (await page.get()).value, live=True)

    def _whole(self, request: Request, asked: Asked, body: Body, *, live: bool = False) -> HTMLResponse:
        """Return a whole page around what may change in it."""
        visitor = visitor_of(request)
        context = {
            "asked": asked,
            "body": Markup(body.html),  # noqa: S704  # rendered by our own template
            "title": body.title,
            "live": live,
            "still": "still" in request.query_params,
            "form_token": visitor.form_token if asked.may_act else "",
            "back": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        }
        return HTMLResponse(self._templates.get_template("base.html").render(context), body.status)

    # Data

    async def _download(self, request: Request) -> Response:
        watched, name = self._entry_of(request)
        raw = await self._data(watched, name, entry_page.LARGEST_DOWNLOAD)
        try:
            raw = shown.redacted(raw, self._settings.redact)
        except shown.Withheld as why:
            raise Refused(403, f"These data are not sent: {why}.") from None
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        return Response(raw, media_type="application/octet-stream", headers=headers)

    async def _picture(self, request: Request) -> Response:
        watched, name = self._entry_of(request)
        raw = await self._data(watched, name, entry_page.LARGEST_DOWNLOAD)
        kind = shown.picture_type(raw)
        if kind is None or self._settings.redact:
            raise Refused(404, "These data are no picture that is shown.")
        return Response(raw, media_type=kind)

    def _entry_of(self, request: Request) -> tuple[Watched, str]:
        number = cast("int", request.path_params["spool"])
        if number >= len(self.watched):
            raise Refused(404, "There is no such spool.")
        return self.watched[number], cast("str", request.path_params["name"])

    async def _data(self, watched: Watched, name: str, most: int) -> bytes:
        try:
            raw = await watched.ask("data", lambda: watched.reader.data(name, most))
        except DataNotFound:
            raise Refused(404, "There are no such data any more.") from None
        except SpoolError as error:
            raise Refused(503, f"The data cannot be read: {error}.") from None
        if raw is None:
            told = f"These data are larger than {human_size(most)}; use the command multispool cat."
            raise Refused(413, told)
        return raw

    # Actions

    async def _act(self, request: Request) -> Response:
        """Say what would be done, or do it, if that was said before."""
        number = cast("int", request.path_params["spool"])
        if not self._settings.allow_actions or number >= len(self.watched):
            raise Refused(403, "Actions are switched off here.")
        form = await form_of(request)
        check_form(request, first(form, "csrf"))
        watched, asked = self.watched[number], self._asked(request, number)
        confirmed = first(form, "confirm") == "yes"
        task = await task_of(form, watched)
        try:
            if confirmed:
                steps = await actions.carry_out(watched, task, _who(request))
            else:
                steps = await actions.rehearse(watched, task)
        except SpoolError as error:
            raise Refused(503, f"It could not be done: {error}.") from None
        _, context = await pages.base(watched, asked, "")
        context |= {
            "title": "Done" if confirmed else "What would be done",
            "task": task,
            "steps": steps,
            "confirmed": confirmed,
            "fine": sum(step.fine for step in steps),
            "form_token": visitor_of(request).form_token,
            "back": back_to(form, asked),
        }
        return self._whole(request, asked, self._body("steps.html", context))

    # Entering

    async def _enter(self, request: Request) -> Response:
        """Give the cookie to who has the token."""
        token = cast("Token", self._authorize)
        if request.method == "POST":
            given = first(await form_of(request), "token").strip()
        else:
            given = request.query_params.get("token", "")
        if not token.is_right(given):
            raise Refused(401, "That is not the token of this dashboard.")
        root = cast("str", request.scope.get("root_path", "")).rstrip("/")
        # Not a redirection: one that began on another site would come without the cookie, which is `SameSite=Strict`.
        response = HTMLResponse(self._templates.get_template("entered.html").render(root=root))
        response.headers.append("set-cookie", cookie_header(token.cookie, token.secret, request))
        return response

    async def _static_file(self, request: Request) -> Response:
        name = cast("str", request.path_params["name"])
        if name not in _STATIC:
            raise Refused(404, "There is no such file.")
        headers = {"cache-control": "public, max-age=300"}
        return Response(self._static[name], media_type=_STATIC[name], headers=headers)

    # Refusals

    def _refuse(self, request: Request, refused: Refused) -> ASGIApp:
        root = cast("str", request.scope.get("root_path", "")).rstrip("/")
        asks = refused.status == 401 and isinstance(self._authorize, Token)  # noqa: PLR2004  # unauthorized
        context = {"why": refused.why, "root": root, "asks": asks, "status": refused.status}
        html = self._templates.get_template("refused.html").render(context)
        return HTMLResponse(html, refused.status)

    def _handlers(self) -> dict[Any, Any]:
        def refused(request: Request, error: Exception) -> ASGIApp:
            return self._refuse(request, cast("Refused", error))

        def missing(request: Request, _error: Exception) -> ASGIApp:
            return self._refuse(request, Refused(404, "There is no such page."))

        return {Refused: refused, 404: missing}


def _named(page: Callable[[Watched, Asked, str], Awaitable[Context]]) -> Callable[[dict[str, Any]], Finder]:
    """Return what finds the page of what is named in the path."""

    def finder(path: dict[str, Any]) -> Finder:
        name = cast("str", path["name"])
        return lambda watched, asked: page(watched, asked, name)

    return finder


def _who(request: Request) -> str:
    """Say who makes a request: what the program's login calls the user, or the address."""
    user = cast("Any", request.scope.get("user"))
    name = getattr(user, "display_name", "") if user is not None else ""
    address = "a local socket" if request.client is None else request.client.host
    return f"{name}, {address}" if name else address


def _time(at: float) -> str:
    return human_time(aware(at))


def _count(number: int) -> str:
    return f"{number:,}"


def _packaged(name: str) -> bytes:
    loader = jinja2.PackageLoader("trio_multispool.web", "static")
    source, _, _ = loader.get_source(jinja2.Environment(autoescape=True), name)
    return source.encode()


def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("trio_multispool.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "visible": shown.visible,
        "lines": shown.lines,
        "size": human_size,
        "time": _time,
        "count": _count,
    }
    made.filters.update(filters)
    return made
