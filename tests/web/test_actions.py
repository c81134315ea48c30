"""What a person can do: each action, said first and then done, on one entry and on many; each is logged."""

from __future__ import annotations

import contextlib
import html
import logging
import re

import httpx
import pytest

from helpers.dashboards import PHOTOS, Photos, furnish, holding
from helpers.inside import storage_of
from helpers.spools import state_of
from helpers.stores import claim, release, store_at
from trio_multispool import Found, Spool, State
from trio_multispool.web.guard import Access

pytestmark = pytest.mark.anyio


async def where(place, name):
    """Return in which queue an entry is, and how; `None`: it is gone."""
    async with (await Spool.load(place, PHOTOS)).unwrap() as spool:
        found = (await spool.find(name)).unwrap()
        if not isinstance(found, Found):
            return None
        return found.queue.value if isinstance(found.queue, Photos) else found.queue, found.state


RESIZE = ("resize", State.AVAILABLE)
FAILED = ("failed", State.AVAILABLE)


@pytest.mark.parametrize(
    ("fields", "name", "before", "after"),
    [
        ({"do": "retry"}, "res-0001", FAILED, RESIZE),
        ({"do": "move", "to": "publish"}, "up-0001", ("uploaded", State.AVAILABLE), ("publish", State.AVAILABLE)),
        ({"do": "move", "to": "resize"}, "later-0001", ("publish", State.WAITING), RESIZE),
        ({"do": "remove"}, "up-0001", ("uploaded", State.AVAILABLE), None),
        ({"do": "remove"}, "later-0001", ("publish", State.WAITING), None),
        ({"do": "remove"}, "bad-0001", ("resize", State.QUARANTINED), None),
        ({"do": "cancel"}, "up-0001", ("uploaded", State.AVAILABLE), None),
        ({"do": "restore"}, "bad-0001", ("resize", State.QUARANTINED), RESIZE),
    ],
)
async def test_an_action_is_said_first_and_done_when_it_is_confirmed(  # noqa: PLR0913, PLR0917  # cases
    place, visiting, fields, name, before, after, caplog
):
    """The first form changes nothing; the one on the page that follows does it, and that is logged."""
    caplog.set_level(logging.INFO, "trio_multispool")
    await furnish(place, ready=3)
    async with visiting(place) as visit:
        told = await visit.post({**fields, "name": name})
        assert "nothing has been done yet" in told.text
        assert await where(place, name) == before
        assert not any(getattr(record, "event", "") == "multispool.operated" for record in caplog.records)
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', told.text))
        assert hidden["name"] == name
        done = await visit.post({key: hidden[key] for key in ("do", "to", "name", "confirm")}, csrf=hidden["csrf"])
        assert "1 done" in done.text
        assert await where(place, name) == after
        assert (await visit.get(f"/0/entry/{name}")).status_code == (404 if after is None else 200)
    [record] = [each for each in caplog.records if getattr(each, "event", "") == "multispool.operated"]
    assert (record.entry, record.queue) == (name, before[0])
    assert record.getMessage().startswith(f"{fields['do']} of entry {name}: ")
    assert record.getMessage().endswith("asked for by 127.0.0.1")


async def test_a_queue_is_paused_and_resumed(place, visiting, caplog):
    """Each is said first, done when it is confirmed, shown on the pages, and logged."""
    caplog.set_level(logging.INFO, "trio_multispool")
    await furnish(place, ready=1)
    async with visiting(place) as visit, (await Spool.load(place, PHOTOS)).unwrap() as spool:

        async def confirmed(told):
            assert "nothing has been done yet" in told.text
            hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', told.text))
            wanted = ("do", "queue", "for", "reason", "confirm")
            return await visit.post({key: html.unescape(hidden[key]) for key in wanted})

        assert "it is not paused, so it is left" in (await visit.post({"do": "resume", "queue": "publish"})).text
        told = await visit.post({"do": "pause", "queue": "publish", "for": "10m", "reason": "<b>the disk"})
        assert (await spool.pauses()).unwrap() == {}
        assert "is paused for 10m: &lt;b&gt;the disk" in (await confirmed(told)).text
        [(queue, pause)] = (await spool.pauses()).unwrap().items()
        assert (queue, pause.reason) == (Photos.PUBLISH, "<b>the disk")
        assert pause.until == pause.since + 600
        for path in ("/0/", "/0/queue/publish"):
            assert ": &lt;b&gt;the disk" in (await visit.get(path)).text
        anew = await visit.post({"do": "pause", "queue": "publish"})
        assert "until it is resumed (it is paused for 9m: &lt;b&gt;the disk)" in anew.text
        assert "goes on" in (await confirmed(await visit.post({"do": "resume", "queue": "publish"}))).text
        assert (await spool.pauses()).unwrap() == {}
        assert "the disk" not in (await visit.get("/0/queue/publish")).text
    said = [each for each in caplog.records if getattr(each, "event", "") == "multispool.operated"]
    assert [(each.queue, hasattr(each, "entry")) for each in said] == [("publish", False)] * 2
    assert [each.getMessage().partition(":")[0] for each in said] == [
        "pause of queue publish",
        "resume of queue publish",
    ]
    assert all(each.getMessage().endswith(", asked for by 127.0.0.1") for each in said)


async def test_a_group_of_dead_letters_is_retried_as_a_whole(place, visiting):
    """All of it and nothing else, each in the queue in which it failed."""
    await furnish(place, ready=1)
    async with visiting(place) as visit:
        page = (await visit.get("/0/dead")).text
        groups = re.findall(r'name="do" value="(retry [0-9a-f]+)"', page)
        assert len(groups) == 3
        told = await visit.post({"do": groups[0]})
        names = re.findall(r'name="name" value="([^"]+)"', told.text)
        assert len(names) == 7
        done = await visit.post({"do": "retry", "name": names, "confirm": "yes"})
        assert "7 done" in done.text
        assert {await where(place, name) for name in names} == {RESIZE}
        assert len(re.findall(r'<h2 id="g-', (await visit.get("/0/dead")).text)) == 2


async def test_what_somebody_has_in_hand_is_cancelled_by_its_owner(place, visiting):
    """The owner is asked; nobody takes it away."""
    await furnish(place, ready=3)
    async with (await Spool.load(place, PHOTOS)).unwrap() as spool, visiting(place) as visit:
        held = claim(storage_of(spool), "uploaded", "up-0000")  # not by a job, whose block would end then
        for do in ("remove", "move", "retry"):
            told = await visit.post({"do": do, "name": "up-0000", "to": "publish"})
            assert "somebody has it in hand, so it is left" in told.text
        assert "its owner would be asked" in (await visit.post({"do": "cancel", "name": "up-0000"})).text
        done = await visit.post({"do": "cancel", "name": "up-0000", "confirm": "yes"})
        assert "its owner was asked" in done.text
        found = (await spool.find("up-0000")).unwrap()
        assert isinstance(found, Found)
        assert found.state is State.CHECKED_OUT
        assert found.cancellation is not None
        assert found.cancellation.reason == "by a person, in the dashboard"
        release(storage_of(spool), held)


async def test_an_action_puts_back_nothing_that_somebody_dead_had(tmp_path, visiting):
    """That is for readers, and for who asks for it: an action does what it says, and nothing else."""
    await furnish(tmp_path / "spool", ready=3)
    with contextlib.closing(store_at(tmp_path / "spool")) as storage:
        claim(storage, "uploaded", "up-0000").abandon()
    async with visiting(tmp_path / "spool") as visit:
        for do, name in (("remove", "up-0001"), ("cancel", "up-0002"), ("restore", "bad-0001")):
            assert "1 done" in (await visit.post({"do": do, "name": name, "confirm": "yes"})).text
    assert "up-0000" in state_of(tmp_path / "spool").checked_out["uploaded"]


async def test_what_has_changed_since_is_left_and_said(place, visiting):
    """Some of a selection is done, and each that is not says why."""
    await furnish(place, ready=5)
    async with visiting(place) as visit:
        names = ["up-0000", "up-0001", "later-0000", "res-0001", "never", ".x", "bad-0000"]
        told = (await visit.post({"do": "move", "to": "failed", "name": names})).text
        assert "With 3 of 7 it can be done" in told
        for why in ("is in &#39;failed&#39; already", "no such entry", "no entry can have", "in quarantine"):
            assert why in told
        async with holding(place, 1):
            done = (await visit.post({"do": "move", "to": "failed", "name": names, "confirm": "yes"})).text
            assert "2 done, 5 left" in done
            assert "somebody has it in hand" in done
        assert await where(place, "up-0001") == FAILED
        assert await where(place, "up-0000") == ("uploaded", State.AVAILABLE)


class Endless(httpx.AsyncByteStream):
    """What is sent without a word about its length, and has no end that anybody should reach."""

    sent = 0

    def __aiter__(self) -> Endless:
        """Return itself: a generator would want to be closed."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next part."""
        self.sent += 1
        assert self.sent < 100, "it is read on and on"
        return b"x" * 65536


async def test_a_form_that_says_nothing_is_refused(tmp_path, visiting):
    """No action, no entry, an unknown queue, and a form that is too large."""
    await furnish(tmp_path / "spool", ready=1)
    async with visiting(tmp_path / "spool") as visit:
        assert (await visit.post({"do": "explode", "name": "up-0000"})).status_code == 400
        assert (await visit.post({"do": "remove"})).status_code == 400
        assert (await visit.post({"do": "retry nothing"})).status_code == 400
        assert (await visit.post({"do": "pause", "name": "uploaded"})).status_code == 400
        assert (await visit.post({"do": "pause", "queue": "uploaded", "for": "-1"})).status_code == 400
        assert "no such queue" in (await visit.post({"do": "pause", "queue": "../etc", "confirm": "yes"})).text
        assert "no queue" in (await visit.post({"do": "move", "to": "../etc", "name": "up-0000"})).text
        assert (await visit.post({"do": "remove", "name": "x" * (1 << 20)})).status_code == 413
        assert (await visit.get("/0/act")).status_code in {404, 405}
        headers = {"content-type": "application/x-www-form-urlencoded", "origin": str(visit.client.base_url)}
        request = visit.client.build_request("POST", "/0/act", headers=headers)
        request.stream = Endless()
        del request.headers["content-length"]
        assert (await visit.client.send(request)).status_code == 413


async def test_who_may_only_look_cannot_act(tmp_path):
    """The program's own login says so, for each request."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from trio_multispool.web import app

    await furnish(tmp_path / "spool", ready=1)

    async def authorize(request):
        return {"reader": Access.LOOK, "operator": Access.ACT}.get(request.headers.get("x-user"), Access.REFUSED)

    mounted = Mount("/queues", app(tmp_path / "spool", authorize=authorize, allow_actions=True, check_every=0))
    transport = httpx.ASGITransport(app=Starlette(routes=[mounted]))
    body = "do=remove&name=up-0000&confirm=yes"
    async with httpx.AsyncClient(transport=transport, base_url="https://work.example") as client:

        async def post(user, csrf):
            headers = {"x-user": user, "origin": "https://work.example"}
            headers["content-type"] = "application/x-www-form-urlencoded"
            return await client.post("/queues/0/act", content=f"{body}&csrf={csrf}", headers=headers)

        assert (await client.get("/queues/0/")).status_code == 401
        assert (await client.get("/queues/enter?token=x")).status_code == 401
        looking = await client.get("/queues/0/", headers={"x-user": "reader"})
        assert looking.status_code == 200
        assert "csrf" not in looking.text
        assert 'href="/queues/0/queue/uploaded"' in looking.text
        cookie = looking.headers["set-cookie"]
        assert cookie.endswith("; Path=/queues/; HttpOnly; SameSite=Strict; Secure")
        acting = (await client.get("/queues/0/", headers={"x-user": "operator"})).text
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', acting)
        assert found is not None
        assert (await post("reader", found[1])).status_code == 403
        assert (await post("operator", "0" * 64)).status_code == 403
        assert await where(tmp_path / "spool", "up-0000") is not None
        assert (await post("operator", found[1])).status_code == 200
        assert await where(tmp_path / "spool", "up-0000") is None
