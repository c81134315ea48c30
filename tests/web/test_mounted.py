"""The dashboard in other applications, behind their login: the example, and FastAPI."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from helpers.dashboards import PHOTOS, Photos, furnish
from trio_multispool import Spool
from trio_multispool.web import Access, app

if TYPE_CHECKING:
    from starlette.requests import Request

pytestmark = pytest.mark.anyio

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "web_dashboard.py"
ADDRESS = "https://work.example"
LINK = re.compile(r'(?:href|src)="([^"]+)"')
FORM = {"content-type": "application/x-www-form-urlencoded", "origin": ADDRESS}


def visit(application: Any) -> httpx.AsyncClient:
    """Return a browser that asks an application, as far as requests go."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url=ADDRESS)


async def test_the_example_asks_for_its_password_and_then_one_may_act(tmp_path, monkeypatch):
    """Who has not logged in sees nothing; the password is redacted; a pause is done by two forms."""
    await furnish(tmp_path / "spool", ready=2)
    monkeypatch.setenv("QUEUES_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("QUEUES_PASSWORD", "open sesame")
    spec = importlib.util.spec_from_file_location("web_dashboard", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    async with visit(example.application) as client:
        assert (await client.get("/queues/0/")).status_code == 401
        assert (await client.post("/", content="password=wrong", headers=FORM)).status_code == 401
        entered = await client.post("/", content="password=open+sesame", headers=FORM)
        assert (entered.status_code, entered.headers["location"]) == (303, "/queues/")
        page = await client.get("/queues/0/queue/uploaded")
        assert "up-0001" in page.text
        token = re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)
        assert token is not None
        assert 'action="/queues/0/act"' in page.text
        body = f"do=pause&queue=uploaded&for=&csrf={token[1]}"
        assert "nothing has been done yet" in (await client.post("/queues/0/act", content=body, headers=FORM)).text
        await client.post("/queues/0/act", content=f"{body}&confirm=yes", headers=FORM)
        async with (await Spool.load(tmp_path / "spool", PHOTOS)).unwrap() as spool:
            assert [*(await spool.pauses()).unwrap()] == [Photos.UPLOADED]


@pytest.mark.parametrize("make", [fastapi.FastAPI, Starlette])
async def test_it_is_mounted_below_any_path_of_an_application(make, tmp_path):
    """All links and the styles lead below that path, also if the whole is below another; its own pages stay its own."""
    await furnish(tmp_path / "spool", ready=2)

    async def authorize(request: Request) -> Access:
        return Access.LOOK if request.headers.get("x-user") == "anne" else Access.REFUSED

    application = make()
    application.mount("/ops/queues", app(tmp_path / "spool", authorize=authorize, check_every=0))
    outer = Starlette(routes=[Mount("/site", application)])
    async with visit(outer) as client:
        assert (await client.get("/site/ops/queues/0/")).status_code == 401
        client.headers["x-user"] = "anne"
        asked, seen = ["/site/ops/queues/"], set[str]()
        while asked:
            path = asked.pop()
            seen.add(path)
            answer = await client.get(path)
            assert answer.status_code == 200, path
            if "html" in answer.headers["content-type"]:
                links = {re.split("[?#]", link)[0] for link in re.findall(r'(?:href|src)="([^"]+)"', answer.text)} - {
                    ""
                }
                assert all(link.startswith("/site/ops/queues/") for link in links)
                asked += {link for link in links - seen if "/entry/" not in link}
        assert {
            "/site/ops/queues/0/dead",
            "/site/ops/queues/0/queue/resize",
            "/site/ops/queues/static/style.css",
        } <= seen
        assert (await client.get("/site/elsewhere")).status_code == 404
