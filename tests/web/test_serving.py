"""Where the command listens, how it is entered, and what it refuses to begin with."""

from __future__ import annotations

import socket
import stat
import sys

import httpx
import pytest

from helpers.dashboards import PHOTOS
from trio_multispool import Spool
from trio_multispool.cli import main
from trio_multispool.cli.commands.web import _listening
from trio_multispool.cli.exits import Failure
from trio_multispool.web.application import Dashboard, Settings
from trio_multispool.web.guard import LOOPBACK, Token
from trio_multispool.web.serving import Bind, Place, Prefixed


def test_where_to_listen_is_understood():
    """A host and a port, either of them, an IPv6 address, or a socket; nobody from elsewhere unless it is said."""
    assert Bind.parse("0.0.0.0:80") == Bind("0.0.0.0", 80)
    assert Bind.parse(":80") == Bind("127.0.0.1", 80)
    assert Bind.parse("example.org") == Bind("example.org")
    assert Bind.parse("[::1]:9") == Bind("::1", 9)
    assert Bind.parse("[::1]") == Bind("::1")
    assert Bind.parse("unix:/run/x") == Bind(socket="/run/x")
    assert [Bind.parse(each).is_here for each in ("127.9.9.9:1", "[::1]", "localhost", "unix:x", "0.0.0.0", "a.b")] == [
        *[True] * 4,
        *[False] * 2,
    ]
    for wrong in ("a:b", "a:70000", "unix:", "a:-1"):
        with pytest.raises(ValueError, match=r"port|unix"):
            Bind.parse(wrong)


def test_the_address_is_that_which_a_browser_asks_for():
    """With the proxy's name and the prefix, where there are any; these names are answered."""
    assert Place(Bind()).address(8765, "t") == "http://127.0.0.1:8765/enter?token=t"
    assert Place(Bind("::1", 1), "/q/").address(1, "t") == "http://[::1]:1/q/enter?token=t"
    place = Place(Bind(socket="x"), "q", ("queues.example:444",))
    assert place.address(0, "t") == "https://queues.example:444/q/enter?token=t"
    assert place.hosts >= LOOPBACK | {"queues.example"}
    assert "queues.example" not in Place(Bind()).hosts


@pytest.mark.anyio
async def test_a_prefix_works_whether_the_proxy_takes_it_away_or_not(tmp_path):
    """All links have it; the cookie is for what is below it."""
    async with (await Spool.create(tmp_path / "spool", PHOTOS)).unwrap():
        pass
    settings = Settings(hosts=LOOPBACK, check_every=0)
    dashboard = Dashboard([tmp_path / "spool"], Token("t"), settings)
    transport = httpx.ASGITransport(app=Prefixed(dashboard.guarded, "queues/"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        entered = await client.get("/enter?token=t")
        assert "Path=/queues/;" in entered.headers["set-cookie"]
        assert 'url=/queues/"' in entered.text
        cookie = {"cookie": entered.headers["set-cookie"].partition(";")[0]}
        for path in ("/queues/0/", "/0/", "/queues/", "/queues", "/"):
            page = await client.get(path, headers=cookie)
            assert page.status_code == 200, path
            assert 'href="/queues/0/queue/resize"' in page.text
        assert (await client.get("/static/style.css")).status_code == 200
        client.cookies.clear()
        assert (await client.get("/queues/0/")).status_code == 401
    dashboard.close()


def test_a_socket_is_for_its_user_alone_and_goes_with_the_command(tmp_path):
    """One that a killed server has left is replaced; one that answers, or anything else, is not."""
    path = tmp_path / "s"
    with _listening("", 0, str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(Failure, match="cannot listen"), _listening("", 0, str(path)):
            pass
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with _listening("", 0, str(path)):
        assert path.exists()
    path.write_bytes(b"precious")
    with pytest.raises(Failure, match="cannot listen"), _listening("", 0, str(path)):
        pass
    assert path.read_bytes() == b"precious"


def test_what_cannot_be_served_is_told_in_a_line(tmp_path, capfd, monkeypatch):
    """No spool, a port that is taken, a place that cannot be understood, and the extra that is missing."""
    assert main(["web", str(tmp_path / "none")]) == 5
    assert "is not a spool" in capfd.readouterr().err
    assert main(["web", str(tmp_path), "--bind", "a:b"]) == 2
    assert "a port is a number" in capfd.readouterr().err
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(Failure, match="in use"), _listening(*taken.getsockname(), None):
        pass
    for module in [each for each in sys.modules if each.startswith("trio_multispool.web")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["web", str(tmp_path)]) == 2
    assert 'needs the extra `web`: python -m pip install "trio-multispool[cli,web]"' in capfd.readouterr().err
    with pytest.raises(ModuleNotFoundError, match=r"needs the extra `web`: python -m pip install"):
        __import__("trio_multispool.web")
