"""Who may ask what: the name, the page and the person are checked, and each answer says what may be done with it."""

from __future__ import annotations

import re

import pytest

from helpers.dashboards import PHOTOS, furnish
from trio_multispool import Spool
from trio_multispool.web.guard import HEADERS, Access, Token, host_of

pytestmark = pytest.mark.anyio

FOREIGN = "https://evil.example"


@pytest.fixture
async def spool(tmp_path):
    """Make an empty spool."""
    async with (await Spool.create(tmp_path / "spool", PHOTOS)).unwrap():
        yield tmp_path / "spool"


async def test_without_the_token_no_page_is_shown(spool, visiting):
    """Each path that says something of a spool is answered with 401, and with nothing about it."""
    async with visiting(spool, entered=False) as visit:
        for path in ("/", "/0/", "/0/dead", "/0/queue/resize", "/0/entry/a", "/0/entry/a/data", "/1/", "/nowhere"):
            answer = await visit.get(path)
            assert answer.status_code == 401, path
            assert "resize" not in answer.text
        assert (await visit.get("/0/", accept="text/event-stream")).status_code == 401


async def test_a_wrong_token_is_refused_and_the_right_one_becomes_a_cookie(spool, visiting):
    """The cookie is kept from scripts and from other sites, and the address with the token is left at once."""
    async with visiting(spool, entered=False) as visit:
        for wrong in ("", "wrong", "a-secret-that-nobody-guesse", "é", "\udcff".encode(errors="surrogatepass").hex()):
            answer = await visit.get(f"/enter?token={wrong}")
            assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        answer = await visit.get("/enter?token=a-secret-that-nobody-guesses")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"{Token('a-secret-that-nobody-guesses').cookie}=")
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
        assert "a-secret" not in answer.text
        assert (await visit.get("/0/")).status_code == 200


async def test_a_cookie_with_another_value_does_not_let_in(spool, visiting):
    """It is the value that counts, not that there is a cookie."""
    async with visiting(spool, entered=False) as visit:
        visit.client.cookies.set(Token("a-secret-that-nobody-guesses").cookie, "guess")
        assert (await visit.get("/0/")).status_code == 401


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example:8765", "", "[::2]", "a b"],
)
async def test_a_foreign_name_is_refused_before_anything_is_looked_at(spool, visiting, host):
    """A name that is made to point here reads nothing, not even with the cookie, nor a file that says nothing."""
    async with visiting(spool) as visit:
        for path in ("/0/", "/static/live.js", "/enter?token=a-secret-that-nobody-guesses"):
            answer = await visit.get(path, host=host)
            assert answer.status_code == 421
            assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:8765"])
async def test_the_names_of_this_host_are_answered(spool, visiting, host):
    """Whatever the port: a tunnel may change it."""
    async with visiting(spool) as visit:
        assert (await visit.get("/0/", host=host)).status_code == 200


async def test_a_page_from_elsewhere_reads_nothing(spool, visiting):
    """Neither by a script (`Origin`), nor as a picture or a frame (`Sec-Fetch-…`), nor from another port."""
    async with visiting(spool) as visit:
        for origin in (
            FOREIGN,
            "http://127.0.0.1:3000",
            "http://localhost:8765",
            "null",
            "file://",
            "",
            "127.0.0.1:8765",
        ):
            assert (await visit.get("/0/", origin=origin)).status_code == 403, origin
        for site in ("cross-site", "same-site", "nonsense"):
            for mode, where in (("no-cors", "image"), ("navigate", "iframe"), ("cors", "empty"), ("no-cors", "script")):
                headers = {"sec_fetch_site": site, "sec_fetch_mode": mode, "sec_fetch_dest": where}
                assert (await visit.get("/0/", **headers)).status_code == 403, headers


async def test_a_person_may_follow_a_link_from_elsewhere(spool, visiting):
    """Then the page is shown by itself, and the one with the link cannot read it."""
    async with visiting(spool) as visit:
        link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
        assert (await visit.get("/0/", **link)).status_code == 200
        assert (await visit.get("/0/", sec_fetch_site="same-origin", origin="http://127.0.0.1:8765")).status_code == 200


async def test_a_change_wants_its_own_page_and_its_form_token(tmp_path, visiting):
    """Nothing is done, and nothing is said of what would be, unless all is right."""
    await furnish(tmp_path / "spool", ready=1)
    asked = {"do": "remove", "name": "up-0000", "confirm": "yes"}
    async with visiting(tmp_path / "spool") as visit:
        right = await visit.form_token()
        link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
        for headers in (
            {"origin": FOREIGN},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:3000"},
            {"origin": ""},
            {"origin": "", **link},
            {"sec_fetch_site": "same-site"},
            {"host": "evil.example", "origin": "http://evil.example"},
        ):
            assert (await visit.post(asked, csrf=right, **headers)).status_code in {403, 421}, headers
        for csrf in ("", "wrong", right[:-1], right.upper() + "é"):
            assert (await visit.post(asked, csrf=csrf)).status_code == 403, csrf
        assert (await visit.post(asked, csrf=right, content_type="text/plain")).status_code == 415
        assert (await visit.client.put("/0/act")).status_code == 405
        assert (await visit.get("/0/entry/up-0000")).status_code == 200
        answer = await visit.post(asked, csrf=right, origin="", sec_fetch_site="same-origin")
        assert answer.status_code == 200
        assert (await visit.get("/0/entry/up-0000")).status_code == 404


async def test_without_the_cookie_a_form_does_nothing(tmp_path, visiting):
    """The token in the form alone does not do."""
    await furnish(tmp_path / "spool", ready=1)
    async with visiting(tmp_path / "spool") as visit:
        right = await visit.form_token()
        visit.client.cookies.clear()
        asked = {"do": "remove", "name": "up-0000", "confirm": "yes"}
        assert (await visit.post(asked, csrf=right)).status_code == 401


async def test_actions_are_off_unless_they_are_allowed(tmp_path, visiting):
    """There is no button, no form and no answer to one."""
    await furnish(tmp_path / "spool", ready=1)
    async with visiting(tmp_path / "spool") as visit:
        right = await visit.form_token()
    async with visiting(tmp_path / "spool", allow_actions=False) as visit:
        for path in ("/0/", "/0/queue/uploaded", "/0/dead", "/0/quarantine", "/0/held", "/0/entry/up-0000"):
            page = (await visit.get(path)).text
            assert "csrf" not in page
            assert "<button form=" not in page
        answer = await visit.post({"do": "remove", "name": "up-0000", "confirm": "yes"}, csrf=right)
        assert answer.status_code == 403
        assert (await visit.get("/0/entry/up-0000")).status_code == 200


async def test_every_answer_says_what_may_be_done_with_it(spool, visiting):
    """Pages, refusals and files all have the headers, and no page holds a script, a style or an address elsewhere."""
    async with visiting(spool) as visit:
        for path in ("/0/", "/0/queue/resize", "/nowhere", "/static/style.css", "/enter", "/0/entry/a/data"):
            answer = await visit.get(path)
            assert HEADERS.items() <= dict(answer.headers).items(), path
            assert answer.headers["cache-control"] == ("public, max-age=300" if "static" in path else "no-store")
            if "html" in answer.headers["content-type"]:
                assert not re.search(r"<script(?! src=\"/static)|<style|style=|\son\w+=|https?://", answer.text), path
        policy = HEADERS["content-security-policy"]
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none';")


async def test_a_web_socket_is_refused(spool, visiting):
    """There is none."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    async with visiting(spool) as visit:
        await visit.dashboard.guarded({"type": "websocket", "headers": [], "path": "/"}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_names_in_host_headers():
    """Without the port, in small letters; what is no name is none."""
    assert [host_of(each) for each in ("A.example:1", "[::1]:80", "a", "[::1", "")] == [
        "a.example",
        "::1",
        "a",
        None,
        None,
    ]


def test_a_token_compares_what_is_no_ascii():
    """Also what a cookie may be that somebody has made up."""
    token = Token("é")
    assert (token.is_right("é"), token.is_right("e"), token.is_right("\udcff")) == (True, False, False)
    assert len(Token().secret) >= 32
    assert Token().secret != Token().secret
    assert Access.ACT is not Access.LOOK
