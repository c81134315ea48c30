"""Streams of changes: what is sent, to whom, and that nobody who does not read costs anything."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from helpers.dashboards import PHOTOS, Photos, furnish, photo
from trio_multispool import Spool, Use
from trio_multispool.web import live, shared
from trio_multispool.web.shared import Body, Shared

if TYPE_CHECKING:
    from conftest import Visit

pytestmark = pytest.mark.anyio


class Viewer:
    """One who has a page open, at the level of ASGI."""

    def __init__(self, visit: Visit, path: str, *, reads: float = math.inf) -> None:
        """Take what it looks at, and after how many parts it reads no more."""
        cookies = "; ".join(f"{name}={value}" for name, value in visit.client.cookies.items())
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": [
                (b"host", b"127.0.0.1:8765"),
                (b"accept", b"text/event-stream"),
                (b"sec-fetch-site", b"same-origin"),
                (b"cookie", cookies.encode()),
            ],
        }
        self.app = visit.dashboard.guarded
        self.status = 0
        self.ended = anyio.Event()
        self._gone = anyio.Event()
        self._reads = reads
        self._sender, self._receiver = anyio.create_memory_object_stream[bytes](1000)

    async def run(self) -> None:
        """Look until the other side ends it, or this one goes."""
        await self.app(self.scope, self._receive, self._send)
        self._sender.close()
        self._receiver.close()
        self.ended.set()

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif self._reads <= 0:
            await anyio.sleep_forever()
        elif message.get("body"):
            self._reads -= 1
            await self._sender.send(message["body"])

    def go(self) -> None:
        """Close the page."""
        self._gone.set()

    async def see(self, wanted: str) -> str:
        """Wait until the page says something, and return all of it."""
        while True:
            told = (await self._receiver.receive()).decode()
            if re.search(wanted, told, re.DOTALL):
                return told


async def test_a_change_is_sent_without_being_asked_for(place, visiting):
    """The page as it is now, and again when something has changed."""
    await furnish(place, ready=2)
    async with visiting(place) as visit, (await Spool.load(place, PHOTOS)).unwrap() as spool:
        async with anyio.create_task_group() as group:
            viewer = Viewer(visit, "/0/queue/uploaded")
            group.start_soon(viewer.run)
            told = await viewer.see("up-0001")
            assert viewer.status == 200
            assert "<html" not in told
            assert "csrf" not in told
            assert "new-one" not in told
            _ = (await spool.enqueue(Photos.UPLOADED, photo(1), b"", name=Use("new-one"))).unwrap()
            _ = await viewer.see("new-one")
            viewer.go()
            await viewer.ended.wait()
        assert visit.dashboard.streams.open == 0


async def test_what_has_not_changed_is_not_sent_again(tmp_path):
    """Only a sign of life is, which browsers pass over."""
    found = 0

    async def find() -> Body:
        nonlocal found
        found += 1
        return Body("the same", "title")

    sent: list[bytes] = []
    done = anyio.Event()

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        if b"still here" in sent[-1]:
            done.set()

    async def receive() -> dict[str, Any]:
        await done.wait()
        return {"type": "http.disconnect"}

    beat = live.BEAT
    try:
        live.BEAT = 0.05  # type: ignore[misc]
        await live.Stream(live.Streams(), Shared(find, 0.0, lambda: 1.0))({"type": "http"}, receive, send)
    finally:
        live.BEAT = beat  # type: ignore[misc]
    assert found > 1
    assert b"".join(sent).count(b"data: the same\n") == 1


async def test_fifty_viewers_share_one_look_and_one_page(tmp_path, visiting):
    """The spool is looked at as often as for one viewer, and the page is made as often."""
    await furnish(tmp_path / "spool", ready=2)
    async with visiting(tmp_path / "spool", every=3600.0) as visit:
        [watched] = visit.dashboard.watched
        looks, asked = 0, 0
        look, ask = watched._looker.look, watched.ask

        def counted() -> Any:
            nonlocal looks
            looks += 1
            return look()

        async def counted_ask(what: str, question: Any) -> Any:
            nonlocal asked
            asked += 1
            return await ask(what, question)

        watched._looker.look = counted  # type: ignore[method-assign]
        watched.ask = counted_ask  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            viewers = [Viewer(visit, "/0/queue/uploaded") for _ in range(50)]
            for viewer in viewers:
                group.start_soon(viewer.run)
            for viewer in viewers:
                _ = await viewer.see("up-0001")
            assert (looks, asked) == (1, 3)  # the look, the entries and their ages
            for viewer in viewers:
                viewer.go()


async def test_pages_that_take_long_share_the_time_that_all_may_take(tmp_path, visiting, monkeypatch):
    """However many are looked at; and what somebody has looked at before takes nothing from the others."""
    await furnish(tmp_path / "spool", ready=2)
    shares: list[float] = []
    monkeypatch.setattr(shared, "pause_after", lambda _took, _every, share: shares.append(share) or 0.0)
    async with visiting(tmp_path / "spool", share=0.12) as visit:
        _ = await visit.get("/0/queue/publish")
        async with anyio.create_task_group() as group:
            viewers = [Viewer(visit, path) for path in ("/0/queue/uploaded", "/0/dead", "/0/held")]
            for viewer in viewers:
                group.start_soon(viewer.run)
                _ = await viewer.see("<h1")
            shares.clear()
            visit.dashboard.watched[0].forget()
            while len(shares) < 12:
                await anyio.lowlevel.checkpoint()
            assert set(shares) == {0.12, 0.04}  # that of the look, and of each page
            for viewer in viewers:
                viewer.go()


@pytest.mark.parametrize("reads", [0, 2], ids=["at all", "any more"])
async def test_a_viewer_that_does_not_read_holds_up_nobody_and_is_let_go(tmp_path, visiting, monkeypatch, reads):
    """Others see changes meanwhile, and when its time is up nothing is left of it."""
    await furnish(tmp_path / "spool", ready=2)
    monkeypatch.setattr(live, "PATIENCE", 0.5)
    async with visiting(tmp_path / "spool") as visit, (await Spool.load(tmp_path / "spool", PHOTOS)).unwrap() as spool:
        async with anyio.create_task_group() as group:
            stuck, other = Viewer(visit, "/0/queue/uploaded", reads=reads), Viewer(visit, "/0/queue/uploaded")
            group.start_soon(stuck.run)
            group.start_soon(other.run)
            _ = await other.see("up-0001")
            _ = (await spool.enqueue(Photos.UPLOADED, photo(1), b"", name=Use("new-one"))).unwrap()
            _ = await other.see("new-one")
            with anyio.fail_after(60):
                await stuck.ended.wait()
            other.go()
        assert visit.dashboard.streams.open == 0


async def test_a_viewer_that_goes_while_all_wait_for_its_look_takes_nothing_away(tmp_path):
    """What one has begun to find out is found out for the others, and not once more."""
    began, go_on, found, times = anyio.Event(), anyio.Event(), [], 0

    async def find() -> int:
        nonlocal times
        times += 1
        began.set()
        await go_on.wait()
        return 7

    known = Shared(find, 3600.0, lambda: 1.0)

    async def ask() -> None:
        found.append(await known.get())

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as first:
                first.start_soon(known.get)
                await began.wait()
                group.start_soon(ask)
                scope.cancel()
                go_on.set()
    assert [tuple(each) for each in found] == [(1, 7)]
    assert times == 1


async def test_what_cannot_be_found_out_is_tried_by_the_next(tmp_path):
    """An error is for who asked; nobody waits for ever."""
    fails = True

    async def find() -> int:
        if fails:
            raise OSError("no")
        return 1

    known = Shared(find, 0.0, lambda: 1.0)
    with pytest.raises(OSError, match="no"):
        await known.get()
    fails = False
    assert (await known.get()).value == 1


async def test_there_is_room_for_so_many_streams(tmp_path, visiting, monkeypatch):
    """The next one is told so, and pages are shown all the same."""
    await furnish(tmp_path / "spool", ready=2)
    monkeypatch.setattr(live, "MOST_STREAMS", 1)
    async with visiting(tmp_path / "spool") as visit, anyio.create_task_group() as group:
        viewer, next_one = Viewer(visit, "/0/"), Viewer(visit, "/0/")
        group.start_soon(viewer.run)
        _ = await viewer.see("uploaded")
        await next_one.run()
        assert next_one.status == 503
        assert (await visit.get("/0/")).status_code == 200
        viewer.go()


async def test_a_look_that_is_under_way_when_the_server_stops_frees_what_it_has_open(tmp_path, visiting):
    """Not while it is at work, and as soon as it has ended."""
    await furnish(tmp_path / "spool", ready=1)
    async with visiting(tmp_path / "spool") as visit:
        [watched] = visit.dashboard.watched
        looker, told = watched._looker, list[str]()
        look, close = looker.look, looker.close

        def looking() -> Any:
            watched.close()
            told.append("closed meanwhile")
            return look()

        def closing() -> None:
            told.append("freed")
            close()

        looker.look, looker.close = looking, closing  # type: ignore[method-assign]
        _ = await watched.looks.get()
        assert told == ["closed meanwhile", "freed"]


async def test_streams_end_when_the_server_stops(tmp_path, visiting):
    """No viewer keeps it from ending."""
    await furnish(tmp_path / "spool", ready=2)
    async with visiting(tmp_path / "spool") as visit, anyio.create_task_group() as group:
        viewer = Viewer(visit, "/0/")
        group.start_soon(viewer.run)
        _ = await viewer.see("uploaded")
        visit.dashboard.close()
        await viewer.ended.wait()


async def test_a_stream_ends_after_a_while_so_that_its_viewer_is_let_in_anew(tmp_path, visiting, monkeypatch):
    """Who may not look any more sees no more."""
    await furnish(tmp_path / "spool", ready=2)
    monkeypatch.setattr(live, "LONGEST", 0.2)
    async with visiting(tmp_path / "spool") as visit:
        viewer = Viewer(visit, "/0/")
        await viewer.run()
        assert viewer.status == 200


def test_no_text_can_end_an_event_or_begin_another():
    """Each kind of line break begins a new line of data."""
    assert live.event("a\r\nevent: b\rid: c\n\nd") == b"data: a\ndata: event: b\ndata: id: c\ndata: \ndata: d\n\n"
