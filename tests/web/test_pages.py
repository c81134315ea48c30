"""Each page, of a real spool on each store; what programs have written is shown as text, whatever it is."""

from __future__ import annotations

import html
import json
import re
import shutil
from typing import Any
from urllib.parse import quote

import pytest

from helpers.dashboards import ANYTHING, RAW, Photos, furnish, holding, picture
from trio_multispool import GiveUp, Retry, Spool, Use
from trio_multispool.web import reading, shown

pytestmark = pytest.mark.anyio

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
TURNED = "\u202egnp.exe\u2066 \u200fx"
HOSTILE = f"{SCRIPT}\"'&{TURNED}\x1b[31m\x00"
NAMES = [
    "<script>alert(1)<\u2215script>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "\u202egnp.exe",
    "%2e%2e%2fetc",
    "a?b#c&d=e",
    "{{7*7}}",
    "a b\u00a0c",
    "日本語-é",
]


def text_of(page: str) -> str:
    """Return what a page says, without its tags."""
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


def holds_no_markup(page: str) -> bool:
    """Tell whether nothing that a program has written is markup, is obeyed, or turns the text around it."""
    if re.search(r"<script(?! src=\"/static/live\.js\" defer)|<img(?! src=\"/)|<svg onload|[\x00\x1b]", page):
        return False
    return not re.search(r"[\u202a-\u202e\u2066-\u2069\u200e\u200f]", text_of(page))


async def test_the_overview_has_each_queue_and_what_is_wrong(place, visiting):
    """Depth, waiting, in hand, quarantine; a problem when two looks have shown it."""
    await furnish(place)
    async with holding(place, 2), visiting(place) as visit:
        _ = await visit.get("/0/")
        page = text_of((await visit.get("/")).text)
        assert all(queue.value in page for queue in Photos)
        assert re.search(r"uploaded\s+58\s+2\s+\S\s+\S", page)
        assert re.search(r"publish\s+12\s+\S\s+6\s+\S", page)
        assert re.search(r"resize\s+0\s+\S\s+\S\s+3", page)
        assert "3 entries are set aside in quarantine" in page


async def test_a_queue_is_shown_by_page_and_by_state(place, visiting):
    """Each entry once; what waits comes in the order in which it is due."""
    await furnish(place, ready=120)
    async with holding(place, 1), visiting(place) as visit:
        seen: list[str] = []
        path = "/0/queue/uploaded"
        while path:
            page = (await visit.get(path)).text
            seen += re.findall(r'<a class="name" href="/0/entry/(up-\d+)"', page)
            found = re.search(r'href="([^"]+)">Next page', page)
            path = html.unescape(found[1]) if found else ""
        assert seen == [f"up-{each:04}" for each in range(1, 120)]
        waiting = (await visit.get("/0/queue/publish?state=waiting")).text
        assert re.findall(r"/0/entry/(later-\d+)", waiting) == [f"later-{each:04}" for each in range(6)]
        assert "in 9m" in waiting
        assert "up-0000" in (await visit.get("/0/queue/uploaded?state=checked_out")).text
        assert "bad-0002" in (await visit.get("/0/queue/resize?state=quarantined")).text
        assert "How old they are" in page
        assert "&lt; 5m" in page


async def test_what_waits_goes_on_where_the_page_before_ended(place, visiting, monkeypatch):
    """Also if several are due at the same time."""
    await furnish(place, ready=1)
    monkeypatch.setattr(reading, "PAGE", 4)
    async with visiting(place) as visit:
        first = (await visit.get("/0/queue/publish?state=waiting")).text
        found = re.search(r'href="([^"]+)">Next page', first)
        assert found is not None
        second = (await visit.get(html.unescape(found[1]))).text
        names = [re.findall(r'class="name" href="/0/entry/(later-\d+)', page) for page in (first, second)]
        assert names == [[f"later-{each:04}" for each in range(4)], [f"later-{each:04}" for each in range(4, 6)]]


async def test_entries_are_filtered_by_name_and_by_metadata(place, visiting):
    """By a pattern, a part of the name, a field's value, or a part of all metadata."""
    await furnish(place)
    async with visiting(place) as visit:

        async def names(query: str) -> set[str]:
            page = (await visit.get(f"/0/queue/uploaded?{query}")).text
            return set(re.findall(r'class="name" href="/0/entry/([^"]+)"', page))

        assert await names("name=up-000*") == {f"up-{each:04}" for each in range(10)}
        assert await names("name=0042") == {"up-0042"}
        assert await names("field=owner&value=dagny&name=up-000*") == {"up-0003", "up-0008"}
        assert await names("value=market+day+(3)") == {"up-0003"}
        assert await names("field=width&value=2048") == {"up-0000", "up-0030"}
        assert await names("field=nothing") == set()
        assert "There is nothing here" in (await visit.get("/0/queue/uploaded?name=none")).text


async def test_a_search_ends_when_its_time_is_up(tmp_path, visiting, monkeypatch):
    """It says how much of the queue it has seen, and the histogram how much it has counted."""
    await furnish(tmp_path / "spool")
    monkeypatch.setattr(reading, "PATIENCE", -1.0)
    async with visiting(tmp_path / "spool") as visit:
        page = (await visit.get("/0/queue/uploaded?name=up*")).text
        assert "There was time to search 0 entries" in page
        assert "There was time to look at 0 entries" in (await visit.get("/0/dead")).text


async def test_an_entry_has_all_that_is_known_of_it(place, visiting):
    """Metadata, data in several ways, its owner and progress, its attempts with the traceback, the reason."""
    await furnish(place)
    async with holding(place, 2), visiting(place) as visit:
        held = (await visit.get("/0/entry/up-0001")).text
        assert "In hand" in held
        assert "resizing, step 2" in held
        assert "the old mill (1)" in held
        assert '<img src="/0/entry/up-0001/picture"' in held
        assert "00000000  89 50 4e 47" in (await visit.get("/0/entry/up-0001?as=hex")).text
        assert "&#34;iso&#34;: 200" in (await visit.get("/0/entry/up-0002")).text
        assert "&#34;iso&#34;: 200}}" in (await visit.get("/0/entry/up-0002?as=text")).text
        failed = text_of((await visit.get("/0/entry/res-0003")).text)
        assert "TimeoutError: storage.example did not answer" in failed
        assert "Traceback (most recent call last):" in failed
        assert "given up" in failed
        assert "ValidationError" in text_of((await visit.get("/0/entry/bad-0001")).text)
        assert "due" in text_of((await visit.get("/0/entry/later-0001")).text)


async def test_what_is_not_there_is_said_plainly(tmp_path, visiting):
    """An entry, a queue, a page, a spool: 404, on a page of the dashboard."""
    await furnish(tmp_path / "spool", ready=1)
    async with visiting(tmp_path / "spool") as visit:
        for path in (
            "/0/entry/gone",
            "/0/queue/none",
            "/0/nothing",
            "/1/",
            "/0/entry/gone/data",
            "/static/x",
            "/0/entry/.a",
        ):
            answer = await visit.get(path)
            assert answer.status_code == 404, path
            assert "<main" in answer.text


async def test_dead_letters_are_grouped_by_why_they_failed(place, visiting):
    """The largest group first, each with where it is, and where it failed."""
    await furnish(place)
    async with visiting(place) as visit:
        page = (await visit.get("/0/dead")).text
        errors = [text_of(each) for each in re.findall(r'<h2 id="g-\d+">(.*?)</h2>', page)]
        assert [" ".join(each.split()) for each in errors] == [
            "7 helpers.dashboards.Unsupported: cannot read a picture of this kind: HEIC",
            "3 TimeoutError: storage.example did not answer within 30 seconds",
            "2 GiveUp: the owner has closed the account",
        ]
        assert 'href="/0/queue/failed"' in page
        assert 'href="/0/queue/resize"' in page


async def test_check_outs_and_quarantine_have_pages_of_their_own(place, visiting):
    """With owner and progress, and with the reasons."""
    await furnish(place)
    async with visiting(place) as visit:
        assert "Nobody has anything in hand" in (await visit.get("/0/held")).text
        async with holding(place, 2):
            visit.dashboard.watched[0].forget()
            held = text_of((await visit.get("/0/held")).text)
            assert re.search(r"up-0000\s+uploaded\s.*33 %, resizing, step 1", held, re.DOTALL)
        page = text_of((await visit.get("/0/quarantine")).text)
        assert page.count("cannot be decoded: ValidationError") == 3


async def test_problems_say_what_they_mean_and_what_a_repair_would_do(tmp_path, visiting):
    """The monitor's own words, and when they began."""
    await furnish(tmp_path / "spool", ready=2)
    (tmp_path / "spool" / ".data" / "up-0000").unlink()
    async with visiting(tmp_path / "spool", check_every=0.001) as visit:
        _ = await visit.get("/0/problems")
        page = text_of((await visit.get("/0/problems")).text)
        assert "entry 'up-0000' in 'uploaded' has lost its data" in page or "has lost its data" in page
        assert "Every entry has one, though it may be empty." in page
        assert "its metadata is set aside in quarantine" in page
        assert "Began:" in page


async def test_a_spool_that_cannot_be_read_is_said_to_be(tmp_path, visiting):
    """At first with 503; later, with what was seen last. It is shown again when it is back."""
    path = tmp_path / "spool"
    async with visiting(path) as visit:
        answer = await visit.get("/0/")
        assert answer.status_code == 503
        assert "This spool cannot be read" in answer.text
        await furnish(path, ready=3)
        assert (await visit.get("/0/")).status_code == 200
        path.rename(tmp_path / "elsewhere")
        for page in ("/0/", "/0/queue/uploaded", "/0/dead", "/0/held", "/0/entry/up-0000", "/0/problems"):
            gone = await visit.get(page)
            assert gone.status_code == 200
            assert "This spool cannot be read" in gone.text, page
            assert "as it was seen last" in gone.text
        assert (await visit.get("/0/entry/up-0000/data")).status_code == 503
        (tmp_path / "elsewhere").rename(path)
        assert "cannot be read" not in (await visit.get("/0/")).text


async def test_several_spools_are_shown_together(tmp_path, visiting):
    """Each with pages of its own; one that cannot be read hides no other."""
    await furnish(tmp_path / "one", ready=3)
    async with visiting(tmp_path / "one", tmp_path / "two") as visit:
        page = (await visit.get("/")).text
        assert str(tmp_path / "one") in page
        assert page.count("This spool cannot be read") == 1
        assert 'href="/0/queue/uploaded"' in page
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        assert (await visit.get("/1/queue/uploaded")).text.count('href="/1/entry/up-') == 3


@pytest.mark.parametrize("name", NAMES)
async def test_hostile_names_are_shown_and_lead_to_their_entry(place, visiting, name):
    """Wherever a name is shown, it is text; its link is an address of this dashboard, and it can be acted on."""
    async with (await Spool.create(place, ANYTHING)).unwrap() as spool:
        _ = (await spool.enqueue(Photos.RESIZE, {HOSTILE: HOSTILE}, SCRIPT.encode(), name=Use(name))).unwrap()
    async with visiting(place) as visit:
        listed = (await visit.get("/0/queue/resize")).text
        [href] = re.findall(r'<a class="name" href="([^"]+)"', listed)
        assert href == f"/0/entry/{quote(name, safe='')}"
        entry = await visit.get(href)
        assert entry.status_code == 200
        rehearsed = await visit.post({"do": "remove", "name": name, "back": "//evil.example/"})
        for page in (listed, entry.text, rehearsed.text):
            assert holds_no_markup(page)
            assert shown.visible(name) in page
        assert "evil.example" not in rehearsed.text
        done = await visit.post({"do": "remove", "name": name, "confirm": "yes"})
        assert "1 done" in done.text
        assert (await visit.get(href)).status_code == 404


async def test_hostile_metadata_data_errors_and_progress_are_text(place, visiting):
    """Also what a handler has raised, what an owner has said, and what is no text at all."""
    assert holds_no_markup("<p>&lt;script")
    assert not holds_no_markup(SCRIPT)
    spool = (await Spool.create(place, RAW)).unwrap()
    async with spool:
        kinds = [
            b"\xff\xfe<script>",
            b'{"a": "' + SCRIPT.replace('"', "").encode() + b'"}',
            TURNED.encode(),
            b"",
            b"\r\n\x0b",
        ]
        for number, each in enumerate(kinds):
            _ = (await spool.enqueue(Photos.RESIZE, each, each, name=Use(f"e{number}"))).unwrap()

        async def handle(_metadata: bytes, _data: Any) -> GiveUp:
            raise ValueError(HOSTILE)

        async with spool.reader(Photos.RESIZE) as reader:
            retry = Retry(dead_letter=Photos.FAILED, attempts=1)
            (await reader.iter_available(handle, retry=retry)).unwrap()
        entry = spool.entry(Photos.FAILED, "e0").unwrap()
        async with (await entry.checkout()).unwrap() as job, visiting(place) as visit:
            _ = await job.progress(0.5, HOSTILE.replace("\x00", ""))
            paths = [
                f"/0/entry/e{number}?as={way}" for number in range(5) for way in ("", "text", "hex", "json", "picture")
            ]
            for path in ["/0/", "/0/dead", "/0/held", "/0/queue/failed", *paths]:
                answer = await visit.get(path)
                assert answer.status_code == 200, path
                assert holds_no_markup(answer.text), path
            assert "alert(1)" in (await visit.get("/0/dead")).text


async def test_five_megabytes_of_json_are_shown_in_part_and_downloaded_whole(place, visiting):
    """A page stays small, and the download is a file, whatever is in it."""
    large = json.dumps([{"n": number, "text": SCRIPT} for number in range(70_000)]).encode()
    assert len(large) > 5_000_000
    async with (await Spool.create(place, RAW)).unwrap() as spool:
        _ = (await spool.enqueue(Photos.RESIZE, large, large, name=Use("large"))).unwrap()
    async with visiting(place) as visit:
        page = await visit.get("/0/entry/large")
        assert len(page.content) < 600_000
        assert "This is the beginning" in page.text
        assert holds_no_markup(page.text)
        assert len((await visit.get("/0/queue/resize")).content) < 30_000
        answer = await visit.get("/0/entry/large/data")
        assert answer.content == large
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''large"


async def test_a_download_has_a_limit(tmp_path, visiting, monkeypatch):
    """It says so, and the page offers none."""
    await furnish(tmp_path / "spool", ready=2)
    monkeypatch.setattr("trio_multispool.web.entry_page.LARGEST_DOWNLOAD", 100)
    async with visiting(tmp_path / "spool") as visit:
        answer = await visit.get("/0/entry/up-0001/data")
        assert answer.status_code == 413
        assert "multispool cat" in answer.text
        assert "/0/entry/up-0001/data" not in (await visit.get("/0/entry/up-0001?as=hex")).text


async def test_only_pictures_are_sent_as_pictures(tmp_path, visiting):
    """By their first bytes: never SVG, which holds scripts, and never HTML."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    given = {"png": picture(), "svg": svg, "html": b"<!doctype html><script>alert(1)</script>"}
    async with (await Spool.create(tmp_path / "spool", RAW)).unwrap() as spool:
        for name, data in given.items():
            _ = (await spool.enqueue(Photos.RESIZE, b"{}", data, name=Use(name))).unwrap()
    async with visiting(tmp_path / "spool") as visit:
        answer = await visit.get("/0/entry/png/picture")
        assert (answer.headers["content-type"], answer.content) == ("image/png", picture())
        for name in ("svg", "html"):
            assert (await visit.get(f"/0/entry/{name}/picture")).status_code == 404
            assert holds_no_markup((await visit.get(f"/0/entry/{name}")).text)


async def test_a_redacted_field_is_shown_nowhere(tmp_path, visiting):
    """Neither in metadata nor in data, however deep, nor can it be guessed by a filter or sent as a file."""
    nested = json.dumps({"a": [{"secret": "hunter2", "open": 1}]}).encode()
    async with (await Spool.create(tmp_path / "spool", RAW)).unwrap() as spool:
        for name, metadata, data in (
            ("json", b'{"secret": "hunter2", "title": "t", "deep": {"secret": ["hunter2"]}}', nested),
            ("raw", b"secret=hunter2", b"secret=hunter2"),
            ("png", b'{"title": "t"}', picture()),
        ):
            _ = (await spool.enqueue(Photos.RESIZE, metadata, data, name=Use(name))).unwrap()
    async with visiting(tmp_path / "spool", redact=frozenset({"secret"})) as visit:
        ways = ["?as=text", "?as=hex", "?as=json", "/data", "/picture", ""]
        for path in ["/0/", "/0/queue/resize", *(f"/0/entry/{name}{way}" for name in ("json", "raw") for way in ways)]:
            answer = await visit.get(path)
            assert "hunter2" not in answer.text, path
            assert b"hunter2".hex(" ") not in answer.text, path
        assert json.loads((await visit.get("/0/entry/json/data")).content) == {"a": [{"secret": "(hidden)", "open": 1}]}
        assert (await visit.get("/0/entry/raw/data")).status_code == 403
        assert (await visit.get("/0/entry/png/picture")).status_code == 404
        for query in ("field=secret&value=hunter", "value=hunter2", "field=secret"):
            page = (await visit.get(f"/0/queue/resize?{query}")).text
            assert 'class="name"' not in page or query == "field=secret", query
        assert "Nobody can search" in (await visit.get("/0/queue/resize?field=secret&value=h")).text


async def test_without_scripts_a_page_reloads_unless_it_is_held(tmp_path, visiting):
    """By itself, in a way that the policy allows; and somebody who reads can stop that."""
    await furnish(tmp_path / "spool", ready=1)
    async with visiting(tmp_path / "spool") as visit:
        reload = '<noscript><meta http-equiv="refresh" content="5"></noscript>'
        assert reload in (await visit.get("/0/")).text
        assert reload not in (await visit.get("/0/?still=1")).text


async def test_looking_writes_nothing_and_locks_nothing(tmp_path, visiting):
    """After all pages, the spool's files are as they were, to the nanosecond."""
    await furnish(tmp_path / "spool")

    def state() -> dict[str, tuple[int, int, int]]:
        found = {str(path): path.stat() for path in sorted(tmp_path.rglob("*"))}
        return {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}

    async with holding(tmp_path / "spool", 1):
        before = state()
        async with visiting(tmp_path / "spool", check_every=0.001) as visit:
            for path in (
                "/",
                "/0/",
                "/0/dead",
                "/0/held",
                "/0/quarantine",
                "/0/problems",
                "/0/queue/uploaded",
                "/0/entry/up-0000",
            ):
                assert (await visit.get(path)).status_code == 200
            assert (await visit.post({"do": "remove", "name": "up-0001"})).status_code == 200
        assert state() == before


def test_text_of_bytes_that_are_cut():
    """A character that is cut at the end is left out; what is no text is none."""
    assert shown.text_of("é".encode()[:1]) == ""
    assert shown.text_of(b"a" + "é".encode()[:1]) == "a"
    assert shown.text_of(b"\xff") is None
    assert shown.in_hex(b"AB\x00") == f"00000000  {'41 42 00':<47}  AB."
