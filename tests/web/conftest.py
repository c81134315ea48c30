"""What the tests of the dashboard share: the application with one visitor, who has the token or not."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
import pytest

pytest.importorskip("jinja2", reason="the dashboard needs the extra `web`")
pytest.importorskip("starlette", reason="the dashboard needs the extra `web`")

from trio_multispool.web.application import Dashboard, Settings
from trio_multispool.web.guard import LOOPBACK, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from helpers.spools import Location

SECRET = "a-secret-that-nobody-guesses"
ADDRESS = "http://127.0.0.1:8765"
FORM = "application/x-www-form-urlencoded"


class Visit:
    """A browser, as far as requests go."""

    def __init__(self, dashboard: Dashboard, client: httpx.AsyncClient) -> None:
        self.dashboard = dashboard
        self.client = client

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Ask for a page; `sec_fetch_site` is the header `sec-fetch-site`."""
        return await self.client.get(path, headers={key.replace("_", "-"): value for key, value in headers.items()})

    async def enter(self) -> None:
        """Go in with the token."""
        answer = await self.get(f"/enter?token={SECRET}")
        assert answer.status_code == 200

    async def form_token(self) -> str:
        """Return what the forms have on the pages."""
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', (await self.get("/0/")).text)
        assert found is not None, "this visitor has no form"
        return found[1]

    async def post(self, fields: dict[str, Any], *, csrf: str | None = None, **headers: str) -> httpx.Response:
        """Send the form of the first spool as its own page does, but for what is given otherwise."""
        token = await self.form_token() if csrf is None else csrf
        body = urlencode({"csrf": token, **fields}, doseq=True)
        sent = {"content-type": FORM, "origin": ADDRESS} | {
            key.replace("_", "-"): value for key, value in headers.items()
        }
        return await self.client.post("/0/act", content=body, headers={key: it for key, it in sent.items() if it})


@pytest.fixture
def visiting() -> Callable[..., contextlib.AbstractAsyncContextManager[Visit]]:
    """Return what opens a dashboard on some spools, for one visitor, who has entered unless that is not wanted."""

    @contextlib.asynccontextmanager
    async def visiting(*places: Location, entered: bool = True, **settings: Any) -> AsyncIterator[Visit]:
        given = {"allow_actions": True, "hosts": LOOPBACK, "check_every": 0.0, "every": 0.0, "share": 1.0, **settings}
        dashboard = Dashboard([str(place) for place in places], Token(SECRET), Settings(**given))
        transport = httpx.ASGITransport(app=dashboard.guarded)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client:
            visit = Visit(dashboard, client)
            if entered:
                await visit.enter()
            try:
                yield visit
            finally:
                dashboard.close()

    return visiting
