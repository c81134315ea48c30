"""The dashboard in a real browser: what is seen, live, narrow and wide, and what the browser keeps others from doing.

The command serves it, as for a person. Needs Chromium (Debian's, or the one at `MULTISPOOL_TEST_CHROMIUM`) and
Playwright, which drives it; nothing is downloaded. With `MULTISPOOL_TEST_PICTURES` in the environment, the pictures of
the documentation are written.
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.dashboards import ANYTHING, PHOTOS, Photo, Photos, furnish, holding, photo
from helpers.dashboards import picture as make_picture
from trio_multispool import Durability, Remove, Save, Spool, Use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.spools import Location

CHROMIUM = os.environ.get("MULTISPOOL_TEST_CHROMIUM") or shutil.which("chromium")
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
PAGES = ("", "queue/uploaded", "queue/publish?state=waiting", "dead", "held", "quarantine", "problems")
PAGES += ("entry/res-0003", "entry/up-0001", "queue/resize")
WIDTHS = (360, 1600)
REBOUND = "queues.example"
"""A foreign name, which leads here."""

pytestmark = [pytest.mark.browser, pytest.mark.program, pytest.mark.anyio]

playwright = pytest.importorskip("playwright.async_api", reason="these tests need Playwright")
if CHROMIUM is None:
    pytest.skip("there is no Chromium on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Playwright runs on asyncio."""
    return "asyncio"


@contextlib.contextmanager
def serving(*places: Location, port: int = 0, options: tuple[str, ...] = ("--allow-actions",)) -> Iterator[Any]:
    """Serve spools by the command; yields the address with the token, and the process."""
    command = [sys.executable, "-m", "trio_multispool", "web", *map(str, places), "--bind", f"127.0.0.1:{port}"]
    with subprocess.Popen(
        [*command, "--every", "0.5", *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in {143, -signal.SIGKILL}


@pytest.fixture
async def browser():
    """Start Chromium."""
    async with playwright.async_playwright() as driver:
        rebound = f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"
        started = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", rebound])
        yield started
        await started.close()


async def enter(browser, address, **how):
    """Return a page of a new visitor, which has entered, and what its console and its dialogs say."""
    context = await browser.new_context(**how)
    page, said = await context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"a dialog: {dialog.message}"))
    await page.goto(address)
    await page.wait_for_selector("#live h2")
    return page, said


def base_of(address: str) -> str:
    """Return the address of the first spool."""
    return address.partition("/enter")[0] + "/0/"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_each_page_fits_narrow_and_wide(tmp_path, browser, scheme):
    """Nothing is wider than the window, nothing is told in the console, and each page has its landmarks and labels."""
    await furnish(tmp_path / "spool")
    await paused(tmp_path / "spool")
    async with holding(tmp_path / "spool", 3):
        with serving(tmp_path / "spool") as (address, _process):
            for width in WIDTHS:
                size = {"width": width, "height": 900}
                page, said = await enter(browser, address, viewport=size, color_scheme=scheme)
                for path in PAGES:
                    await page.goto(base_of(address) + path)
                    await page.wait_for_selector('#status[data-state="live"]')
                    assert await page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
                    assert await page.evaluate(UNLABELLED) == [], path
                    assert await page.evaluate(FAINT) == [], (path, scheme)
                    for role in ("main", "banner"):
                        assert await page.get_by_role(role).count() == 1
                    assert await page.get_by_role("navigation").count() >= 1
                    assert await page.locator("h1").count() == 1
                assert said == []
                await page.context.close()


async def paused(place: Location) -> None:
    """Pause a queue."""
    async with (await Spool.load(place, PHOTOS)).unwrap() as spool:
        _ = (await spool.pause(Photos.RESIZE, 7200, reason="waiting for the new codec")).unwrap()


UNLABELLED = """() => [...document.querySelectorAll("input:not([type=hidden]), select, button, a, svg[role=img], img")]
    .filter((each) => !each.hidden && !(each.labels && each.labels.length) && !each.getAttribute("aria-label")
        && !each.textContent.trim() && !each.getAttribute("alt")).map((each) => each.outerHTML)"""
"""What has no name for somebody who does not see it."""

FAINT = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgb = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const over = (top, bottom) => [0, 1, 2].map((n) => top[n] * top[3] / 255 + bottom[n] * (1 - top[3] / 255));
    const ground = (element) => {
        if (!element) return [255, 255, 255];
        const own = rgb(getComputedStyle(element).backgroundColor);
        return own[3] === 255 ? [...own].slice(0, 3) : over(own, ground(element.parentElement));
    };
    const light = (color) => color.map((each) => each / 255)
        .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
        .reduce((sum, each, n) => sum + each * [0.2126, 0.7152, 0.0722][n], 0);
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || element.closest("noscript, option")) continue;
        if (!element.checkVisibility()) continue;
        const behind = ground(element), style = getComputedStyle(element);
        const pair = [light(over(rgb(style.color), behind)), light(behind)].sort((a, b) => b - a);
        const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
        const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        if (contrast < (large ? 3 : 4.5)) found.push(`${walker.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
    }
    return found;
}"""
"""Texts whose contrast is less than WCAG's level AA wants."""


async def bustle(place: Location) -> None:
    """Enqueue, move on and remove, so that there is something to be seen; ends when it is cancelled."""
    spool = (await Spool.load(place, PHOTOS, durability=Durability.PROCESS)).unwrap()

    async def publish(_photo: Photo, _data: object) -> Save[Photos, Photo]:
        await anyio.sleep(0.05)
        return Save(Photos.PUBLISH)

    async def remove(_photo: Photo, _data: object) -> Remove:
        await anyio.sleep(0.06)
        return Remove()

    async def work(queue: Photos, handle: Any) -> None:
        async with spool.reader(queue) as reader:
            (await reader.iter(handle, concurrency=2)).unwrap()

    async with spool, anyio.create_task_group() as group:
        group.start_soon(work, Photos.UPLOADED, publish)
        group.start_soon(work, Photos.PUBLISH, remove)
        for number in itertools.count():
            for _ in range(number * 7 % 11 + 12 * (number % 30 < 8)):
                _ = (await spool.enqueue(Photos.UPLOADED, photo(number), make_picture())).unwrap()
            await anyio.sleep(0.5)


@pytest.mark.skipif("MULTISPOOL_TEST_PICTURES" not in os.environ, reason="the pictures are not wanted")
async def test_the_pictures_of_the_documentation(browser):
    """They show a spool on which somebody works."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).parent / "photos"
        shutil.rmtree(place, ignore_errors=True)
        await furnish(place, ready=40)
        await paused(place)
        async with holding(place, 3), anyio.create_task_group() as group:
            group.start_soon(bustle, place)
            with serving(place) as (address, _process):
                page, _said = await enter(browser, address, viewport={"width": 1600, "height": 900})
                points = """() => Math.max(...[...document.querySelectorAll(".spark .came")]
                    .map((each) => each.getAttribute("points").split(" ").length)) >= 5"""
                await page.wait_for_function(points, timeout=180_000)
                for width, scheme in ((1600, "light"), (360, "dark")):
                    await page.set_viewport_size({"width": width, "height": 900 if width > 400 else 780})
                    await page.emulate_media(color_scheme=scheme)
                    for path, name in PICTURED.items():
                        await page.goto(base_of(address) + path)
                        await page.wait_for_selector('#status[data-state="live"]')
                        if (width, scheme, path) in {*((1600, "light", each) for each in PICTURED), (360, "dark", "")}:
                            _ = await page.screenshot(path=PICTURES / f"web-{name}-{width}.png")
            group.cancel_scope.cancel()
        shutil.rmtree(place)


PICTURED = {"": "overview", "dead": "dead-letters", "entry/res-0003": "entry", "queue/uploaded": "queue"}


async def test_a_change_is_seen_without_a_reload_and_keeps_what_a_person_has_done(place, browser):
    """A choice, the focus and what is open stay; the page is the same document."""
    await furnish(place, ready=5)
    with serving(place) as (address, _process):
        page, said = await enter(browser, address)
        await page.goto(base_of(address) + "queue/uploaded")
        await page.wait_for_selector('#status[data-state="live"]')
        await page.evaluate("window.mark = 1")
        await page.get_by_label("Choose up-0003").check()
        await page.get_by_label("Name", exact=True).fill("typed")
        async with (await Spool.load(place, PHOTOS)).unwrap() as spool:
            _ = (await spool.enqueue(Photos.UPLOADED, photo(1), b"", name=Use("new-one"))).unwrap()
            await page.wait_for_selector("text=new-one")
            entry = spool.entry(Photos.UPLOADED, "up-0001").unwrap()
            async with (await entry.checkout()).unwrap() as job:
                (await job.remove()).unwrap()
        await page.wait_for_selector("text=up-0001", state="detached")
        assert await page.get_by_label("Choose up-0003").is_checked()
        assert not await page.get_by_label("Choose new-one").is_checked()
        assert await page.get_by_label("Name", exact=True).input_value() == "typed"
        assert await page.evaluate("document.activeElement.id") == "f-name"
        assert await page.evaluate("window.mark") == 1
        assert said == []


async def test_entries_are_chosen_and_acted_on(place, browser):
    """All of a page by one box; what would be done is shown, and is done when it is confirmed; Back leads back."""
    await furnish(place, ready=4)
    with serving(place) as (address, _process):
        page, said = await enter(browser, address)
        await page.goto(base_of(address) + "queue/uploaded")
        await page.get_by_label("Choose all").check()
        await page.get_by_label("Choose up-0002").uncheck()
        await page.get_by_label("to", exact=True).select_option("publish")
        await page.get_by_role("button", name="Move…", exact=True).click()
        await page.wait_for_selector("text=nothing has been done yet")
        await page.get_by_role("button", name="Move 3 entries").click()
        await page.wait_for_selector("text=3 done")
        await page.get_by_role("link", name="Back").click()
        await page.wait_for_selector("text=up-0002")
        assert await page.locator(".entries tbody tr").count() == 1
        await page.goto(base_of(address) + "dead")
        await page.get_by_role("button", name=re.compile("Retry all 7 in resize")).click()
        await page.get_by_role("button", name="Retry 7 entries").click()
        await page.wait_for_selector("text=7 done")
        assert said == []


async def test_every_action_is_done_by_its_button(place, browser):
    """On an entry's own page, and on a queue's; each is said first, and leads back."""
    await furnish(place, ready=3)
    with serving(place) as (address, _process):
        page, said = await enter(browser, address)
        for path, button, then, told in (
            ("entry/res-0001", "Retry in resize…", "Retry 1 entry", "is in resize now"),
            ("entry/up-0000", "Move…", "Move 1 entry", "is in failed now"),
            ("entry/up-0001", "Cancel…", "Cancel 1 entry", "was removed"),
            ("entry/up-0002", "Remove…", "Remove 1 entry", "was removed from uploaded"),
            ("entry/bad-0001", "Put back…", "Put back 1 entry", "is back in resize"),
            ("queue/publish", "Pause…", "Pause 1 queue", "is paused until it is resumed"),
            ("queue/publish", "Pause anew…", "Pause 1 queue", "is paused for 10m: the relay"),
            ("queue/publish", "Resume…", "Resume 1 queue", "goes on"),
        ):
            await page.goto(base_of(address) + path)
            if "10m" in told:
                await page.get_by_label("for", exact=True).select_option("10m")
                await page.get_by_label("because").fill("the relay")
            await page.get_by_role("button", name=button, exact=True).click()
            await page.wait_for_selector("text=nothing has been done yet")
            await page.get_by_role("button", name=then, exact=True).click()
            await page.wait_for_selector("text=1 done")
            assert told in await page.locator(".steps .done").inner_text()
            await page.get_by_role("link", name="Back").click()
            await page.wait_for_selector("h1")
        assert said == [] or all("404" in each for each in said)  # what was removed is not there to go back to
        assert await page.get_by_text("paused", exact=True).count() == 0


async def test_a_pause_by_somebody_else_is_seen_without_a_reload(place, browser):
    """And its end."""
    await furnish(place, ready=1)
    with serving(place) as (address, _process):
        page, _said = await enter(browser, address)
        await page.wait_for_selector('#status[data-state="live"]')
        async with (await Spool.load(place, PHOTOS)).unwrap() as spool:
            _ = (await spool.pause(Photos.RESIZE, reason="the codec")).unwrap()
            await page.wait_for_selector("text=until it is resumed: the codec")
            (await spool.resume(Photos.RESIZE)).unwrap()
            await page.wait_for_selector("text=the codec", state="detached")


async def test_large_json_is_shown_in_part_and_downloaded_whole(place, browser):
    """Five megabytes: the page stays usable, and what is saved is what was enqueued."""
    raw = b'{"rows": [' + b",".join(b'{"number": %d}' % each for each in range(330_000)) + b"]}"
    assert len(raw) > 5_000_000
    async with (await Spool.create(place, ANYTHING)).unwrap() as spool:
        _ = (await spool.enqueue(Photos.RESIZE, {"rows": 330_000}, raw, name=Use("large"))).unwrap()
    with serving(place) as (address, _process):
        page, said = await enter(browser, address)
        await page.goto(base_of(address) + "entry/large")
        await page.wait_for_selector("text=This is the beginning")
        assert len(await page.content()) < 300_000
        async with page.expect_download() as download:
            await page.get_by_role("link", name="Download").click()
        assert await anyio.Path(await (await download.value).path()).read_bytes() == raw
        assert said == []


async def test_who_has_no_token_is_asked_for_it_and_a_foreign_name_is_refused(tmp_path, browser):
    """Nothing of the spool is told before; a name that leads here, as by DNS rebinding, shows nothing to anybody."""
    await furnish(tmp_path / "spool", ready=1)
    with serving(tmp_path / "spool") as (address, _process):
        page = await (await browser.new_context()).new_page()
        await page.goto(base_of(address))
        assert "Who are you?" in await page.inner_text("main")
        assert "uploaded" not in await page.content()
        await page.get_by_label("token").fill("wrong")
        await page.get_by_role("button", name="Enter").click()
        await page.wait_for_selector("text=not the token")
        await page.get_by_label("token").fill(address.partition("token=")[2])
        await page.get_by_role("button", name="Enter").click()
        await page.wait_for_selector("h2 >> text=Queues")
        answer = await page.goto(address.replace("127.0.0.1", REBOUND))
        assert answer.status == 421
        assert "does not go by the name" in await page.inner_text("main")


async def test_hostile_content_does_nothing_in_a_browser(tmp_path, browser):
    """No script of it runs, nothing is fetched from elsewhere, and none of it turns the page around."""
    script = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202e"
    async with (await Spool.create(tmp_path / "spool", ANYTHING)).unwrap() as spool:
        for number, name in enumerate(('"><svg onload=alert(3)>', "javascript:alert(4)", "\u202egnp.exe")):
            metadata = {script: script, "n": number}
            _ = (await spool.enqueue(Photos.RESIZE, metadata, script.encode(), name=Use(name))).unwrap()
    with serving(tmp_path / "spool") as (address, _process):
        page, said = await enter(browser, address)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(base_of(address) + "queue/resize")
        await page.wait_for_selector('#status[data-state="live"]')
        links = [await each.get_attribute("href") for each in await page.locator("a.name").all()]
        assert len(links) == 3
        for link in links:
            await page.goto(address.partition("/enter")[0] + str(link))
            await page.wait_for_selector('#status[data-state="live"]')
            assert "alert(2)" in await page.locator("pre").first.inner_text()
        assert said == []
        assert all(url.startswith(address.partition("/enter")[0]) for url in asked)
        assert await page.evaluate("document.scripts.length") == 1


async def test_another_page_in_the_browser_can_do_nothing(tmp_path, browser):
    """One on another port of this host, which is the same site: it reads nothing and changes nothing."""
    await furnish(tmp_path / "spool", ready=1)
    with serving(tmp_path / "spool") as (address, _process), evil() as elsewhere:
        page, _said = await enter(browser, address)
        base = base_of(address)
        await page.goto(elsewhere)
        assert await page.evaluate(READ, base) == "no"
        assert await page.evaluate(SHOWN, f"{base}entry/up-0001/picture") == "no"
        await page.evaluate(POSTED, f"{base}act")
        await page.wait_for_selector("text=A page from elsewhere")
        await page.goto(f"{base}entry/up-0000")
        await page.wait_for_selector("h1.entry")


READ = """async (url) => {
    try { return (await fetch(url, {credentials: "include"})).status } catch { return "no" }
}"""
SHOWN = """async (url) => {
    const made = document.createElement("img");
    made.src = url;
    return await new Promise((end) => { made.onload = () => end("yes"); made.onerror = () => end("no") });
}"""
POSTED = """async (url) => {
    const form = document.createElement("form");
    form.method = "post";
    form.action = url;
    for (const [name, value] of [["do", "remove"], ["name", "up-0000"], ["confirm", "yes"]]) {
        const field = document.createElement("input");
        field.name = name;
        field.value = value;
        form.append(field);
    }
    document.body.append(form);
    form.submit();
}"""
"""What such a page tries."""


@contextlib.contextmanager
def evil() -> Iterator[str]:
    """Serve an empty page on another port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>evil</title><body>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


async def test_it_says_when_the_server_is_gone_and_goes_on_when_the_spool_is_back(tmp_path, browser):
    """A spool that is gone is said on the page, at once; a server that is gone, beside what was seen last."""
    path = tmp_path / "spool"
    await furnish(path, ready=2)
    with serving(path) as (address, process):
        page, _said = await enter(browser, address)
        await page.wait_for_selector('#status[data-state="live"]')
        path.rename(tmp_path / "elsewhere")
        await page.wait_for_selector("[role=alert] >> text=This spool cannot be read")
        (tmp_path / "elsewhere").rename(path)
        await page.wait_for_selector("[role=alert]", state="detached")
        process.send_signal(signal.SIGKILL)
        await page.wait_for_selector('#status[data-state="gone"]')
        assert "The server does not answer" in await page.locator("#status").inner_text()
        assert "uploaded" in await page.locator("main").inner_text()


async def test_without_scripts_it_reloads_and_acts(tmp_path, browser):
    """All is done by links and forms."""
    await furnish(tmp_path / "spool", ready=2)
    with serving(tmp_path / "spool") as (address, _process):
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(address)
        await page.wait_for_selector("h2 >> text=Queues")
        async with (await Spool.load(tmp_path / "spool", PHOTOS)).unwrap() as spool:
            await page.goto(base_of(address) + "queue/uploaded")
            _ = (await spool.enqueue(Photos.UPLOADED, photo(1), b"", name=Use("new-one"))).unwrap()
        await page.wait_for_selector("text=new-one")
        await page.goto(base_of(address) + "entry/up-0001?still=1")
        await page.get_by_role("button", name="Remove…").click()
        await page.get_by_role("button", name="Remove 1 entry").click()
        await page.wait_for_selector("text=1 done")
        await context.close()


async def test_it_is_used_by_keyboard_alone(tmp_path, browser):
    """The first stop leads past the navigation; each stop can be seen; Enter and Space do what a click does."""
    await furnish(tmp_path / "spool", ready=2)
    with serving(tmp_path / "spool") as (address, _process):
        page, _said = await enter(browser, address)
        await page.goto(base_of(address))
        await page.wait_for_selector('#status[data-state="live"]')
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "failed"
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        await page.wait_for_selector("h1 >> text=failed")
        await page.get_by_label("Choose all").focus()
        await page.keyboard.press("Space")
        assert await page.get_by_label("Choose res-0001").is_checked()


def fill_by_hand(path: Path, number: int) -> None:
    """Make entries as the library lays them down, and quicker."""
    for each in range(number):
        for folder, content in ((".registry", b""), (".data", b""), ("uploaded", b'{"title": "t", "owner": "anne"}')):
            (path / folder / f"e{each:06}").write_bytes(content)


async def test_a_hundred_thousand_entries_are_looked_at(tmp_path, browser):
    """Each page comes, and the queue can be searched."""
    async with (await Spool.create(tmp_path / "spool", PHOTOS)).unwrap():
        pass
    fill_by_hand(tmp_path / "spool", 100_000)
    with serving(tmp_path / "spool") as (address, _process):
        page, said = await enter(browser, address)
        await page.wait_for_selector("text=100,000")
        await page.goto(base_of(address) + "queue/uploaded?name=e09999*")
        await page.wait_for_selector("text=e099999")
        for path in ("queue/uploaded", "dead", "problems", "held"):
            await page.goto(base_of(address) + path)
            await page.wait_for_selector('#status[data-state="live"]')
        assert said == []
