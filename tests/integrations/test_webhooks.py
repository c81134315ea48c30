"""The webhook deliverer of the examples: against a server that fails, stalls and recovers, and killed at random."""

from __future__ import annotations

import base64
import collections
import configparser
import contextlib
import hashlib
import hmac
import http.server
import itertools
import os
import random
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.children import quick_directory
from helpers.spools import state_of
from trio_multispool import Spool, Use
from trio_multispool.model.attempts import history_in
from trio_multispool.model.notes import decode_notes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.program

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "webhooks"
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
QUICK = ["--first-wait", "0.02", "--longest-wait", "0.1", "--time-limit", "0.3"]
LIMIT = 60.0
"""After so many seconds, a test that waits is given up: it fails, and does not hang."""


class Receiver:
    """A server of webhooks on several addresses of this host, which answers as its schedule says."""

    def __init__(self) -> None:
        """Accept everything at first."""
        self.answer: Any = lambda _request: 200
        self.accepted: collections.Counter[str] = collections.Counter()
        self.bodies: dict[str, bytes] = {}
        self.requests: list[dict[str, str]] = []
        self.most: collections.Counter[str] = collections.Counter()
        self._now: collections.Counter[str] = collections.Counter()
        self._mutex = threading.Lock()
        self.go_on = threading.Event()
        self.ports: dict[str, int] = {}
        self._servers: list[http.server.ThreadingHTTPServer] = []
        for host in HOSTS:
            server = http.server.ThreadingHTTPServer((host, 0), self._handler(host))
            server.daemon_threads = True
            self._servers.append(server)
            self.ports[host] = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """End."""
        self.go_on.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def url(self, host: str = HOSTS[0], path: str = "") -> str:
        """Return where to post."""
        return f"http://{host}:{self.ports[host]}/{path}"

    def _handler(self, host: str) -> type[http.server.BaseHTTPRequestHandler]:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the server's name for it
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver._mutex:
                    receiver._now[host] += 1
                    receiver.most[host] = max(receiver.most[host], receiver._now[host])
                    receiver.requests.append(dict(self.headers) | {"Path": self.path})
                    number = len(receiver.requests)
                try:
                    status, headers = receiver._judge(number, self.path)
                finally:
                    with receiver._mutex:
                        receiver._now[host] -= 1
                if status == 200:
                    with receiver._mutex:
                        receiver.accepted[self.headers["Webhook-Id"]] += 1
                        receiver.bodies[self.headers["Webhook-Id"]] = body
                with contextlib.suppress(OSError):  # who asked is gone
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler

    def _judge(self, number: int, path: str) -> tuple[int, dict[str, str]]:
        answer = self.answer((number, path))
        return answer if isinstance(answer, tuple) else (answer, {})

    def stall(self) -> int:
        """Answer when the test says so, or when nobody can be waiting any more."""
        self.go_on.wait(5)
        return 500


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a server."""
    server = Receiver()
    yield server
    server.close()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


def deliverer(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
    """Start the program."""
    command = [sys.executable, str(EXAMPLE / "deliverer.py"), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)


@contextlib.contextmanager
def running(path: Path, *arguments: Any, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a deliverer, which is killed at the end if it has not ended."""
    process = deliverer("run", path, *arguments, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def send(path: Path, webhook: str, url: str, body: bytes = b"{}") -> str:
    """Enqueue a webhook by the command line."""
    command = [sys.executable, str(EXAMPLE / "deliverer.py"), "send", str(path), webhook, url]
    return subprocess.run(command, input=body, check=True, capture_output=True).stdout.decode().strip()


def send_many(path: Path, urls: dict[str, str]) -> None:
    """Enqueue many likewise, with the types of the program: an application would."""
    program = runpy.run_path(str(EXAMPLE / "deliverer.py"))
    hook, queue = program["Hook"], program["Queue"].OUTGOING

    async def enqueue_all() -> None:
        spool = (await Spool.create(path, program["HOOKS"])).unwrap()
        for webhook, url in urls.items():
            (await spool.enqueue(queue, hook(url), webhook.encode(), name=Use(webhook))).unwrap()

    trio.run(enqueue_all)


def wait_until(condition: Any, what: str) -> None:
    """Look until something is so."""
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until, f"it never came to be that {what}"
        time.sleep(0.005)


def is_empty(path: Path, queue: str = "outgoing") -> bool:
    """Tell whether nothing of a queue is left, in whatever state."""
    state = state_of(path)
    return not (state.available[queue] or state.waiting[queue] or state.checked_out[queue])


def test_every_webhook_arrives_though_the_server_fails_and_the_deliverer_is_killed(path, receiver):
    """The server fails, stalls, is too busy, and recovers, by the number of the request; kills are by chance."""
    chance = random.Random(7)  # no secret
    webhooks = {f"hook-{number:03}": receiver.url(HOSTS[number % 3], f"{number}") for number in range(120)}
    schedule = [
        (80, lambda: 500),
        (110, receiver.stall),
        (190, lambda: (429, {"Retry-After": "0"})),
        (260, lambda: 404),
        (280, receiver.stall),
        (340, lambda: 503),
    ]

    def answer(request: tuple[int, str]) -> Any:
        for last, phase in schedule:
            if request[0] <= last:
                return phase()
        return 200 if request[0] % 5 else 500  # it recovers, more or less

    receiver.answer = answer
    send_many(path, webhooks)
    arguments = [*QUICK, "--attempts", "1000", "--per-host", "4", "--concurrency", "16"]
    kills = 0
    for number in itertools.count():
        with running(path, *arguments, stdout=subprocess.DEVNULL) as process:
            seen = len(receiver.requests)
            if number == 8:
                wait_until(lambda: is_empty(path), "all was delivered")
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=LIMIT)
                break
            at = seen + chance.randrange(1, 60)
            wait_until(lambda at=at: len(receiver.requests) >= at or is_empty(path), "the server was asked")
            kills += 1
    assert kills == 8
    subprocess.run([sys.executable, "-m", "trio_multispool", "recover", str(path)], check=True, capture_output=True)
    state = state_of(path)  # what a removal had left that was killed, as `recover` is for, is gone
    assert (state.entries(), state.faults()) == (set(), [])
    assert receiver.accepted.keys() == webhooks.keys(), "every webhook arrived"
    assert all(receiver.bodies[webhook] == webhook.encode() for webhook in webhooks)
    twice = sum(receiver.accepted.values()) - len(webhooks)
    assert twice <= 16 * kills, "only what was under way when a deliverer was killed may come twice"


def test_no_host_is_asked_more_at_a_time_than_it_may_be_and_none_waits_for_another(path, receiver):
    """In two processes together; while one host stalls, the others have all of theirs."""
    stalled = HOSTS[0]
    receiver.answer = lambda request: receiver.stall() if request[1].startswith("/stalls") else 200
    webhooks = {f"a-{number}": receiver.url(stalled, f"stalls{number}") for number in range(12)}
    webhooks |= {f"b-{number}": receiver.url(HOSTS[1 + number % 2], "quick") for number in range(40)}
    send_many(path, webhooks)
    arguments = ["--per-host", "3", "--concurrency", "8", "--time-limit", "60", "--first-wait", "0.01"]
    with running(path, *arguments), running(path, *arguments):
        wait_until(lambda: len(receiver.accepted) == 40, "the quick hosts had all of theirs")
        assert receiver.most[stalled] == 3
        receiver.answer = lambda _request: 200
        receiver.go_on.set()
        wait_until(lambda: is_empty(path), "all was delivered")
    assert receiver.accepted.keys() == webhooks.keys()
    assert max(receiver.most.values()) <= 3


def test_what_is_refused_for_good_is_a_dead_letter(path, receiver):
    """At once for 410, and for a URL that is none; after its attempts for all else; `Retry-After` is heeded."""
    answers = {
        "/gone": 410,
        "/broken": 500,
        "/later": (503, {"Retry-After": "0"}),
        "/busy": (429, {"Retry-After": "x"}),
    }
    receiver.answer = lambda request: answers[request[1]]
    send_many(
        path,
        {name.strip("/"): receiver.url(path=name.strip("/")) for name in answers} | {"none": "http://127.0.0.1:port/"},
    )
    with running(path, *QUICK, "--attempts", "3"):
        wait_until(lambda: len(state_of(path).names("failed")) == 5, "all are dead letters")
    kept = {name: history_in(decode_notes(notes)) for name, notes in state_of(path).notes.items()}
    told = {
        name: [each.failure.type for each in found.attempts if each.failure] for name, found in kept.items() if found
    }
    assert told == {
        "gone": ["GiveUp"],
        "broken": ["NotAccepted"] * 3,
        "later": ["RetryLater"] * 3,
        "busy": ["NotAccepted"] * 3,
        "none": ["httpx.InvalidURL"],
    }
    attempts = [request["Webhook-Attempt"] for request in receiver.requests if request["Path"] == "/broken"]
    assert attempts == ["1", "2", "3"]


def test_sigterm_gives_what_is_under_way_some_time_and_returns_the_rest(path, receiver):
    """Exit code 0; what was cut short has cost no attempt, and another deliverer delivers it."""
    receiver.answer = lambda _request: receiver.stall()
    send_many(path, {"hook": receiver.url()})
    with running(path, "--grace", "0.1", "--time-limit", "60") as process:
        wait_until(lambda: receiver.requests, "the request was made")
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, shown
    assert b"SIGTERM: 0.1 seconds" in shown
    assert b"stopped" in shown
    state = state_of(path)
    assert (state.names("outgoing"), state.notes) == (["hook"], {})
    receiver.answer = lambda _request: 200
    receiver.go_on.set()
    with running(path):
        wait_until(lambda: is_empty(path), "it was delivered")
    assert receiver.requests[-1]["Webhook-Attempt"] == "1"


def test_sigterm_lets_what_is_under_way_come_to_its_end(path, receiver):
    """And takes nothing new."""
    receiver.answer = lambda _request: 200 if receiver.go_on.wait(LIMIT) else 500
    send_many(path, {f"hook-{number}": receiver.url() for number in range(6)})
    with running(path, "--per-host", "2", "--time-limit", "600", "--grace", "600") as process:
        wait_until(lambda: len(receiver.requests) == 2, "two requests were made")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        wait_until(lambda: b"SIGTERM" in process.stderr.readline(), "it had the signal")
        receiver.go_on.set()
        process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert len(receiver.accepted) == 2
    assert len(state_of(path).names("outgoing")) == 4


@pytest.mark.sample
def test_an_event_is_sent_once_and_signed(path, receiver, tmp_path):
    """A second webhook of the same ID is known, also when the first has been delivered."""
    (tmp_path / "secret").write_bytes(b"whisper\n")
    assert send(path, "order-17", receiver.url(), b'{"order": 17}') == "enqueued"
    assert send(path, "order-17", receiver.url(), b'{"order": 17}') == "known"
    with running(path, "--secret-file", tmp_path / "secret"):
        wait_until(lambda: is_empty(path), "it was delivered")
    assert send(path, "order-17", receiver.url(), b'{"order": 17}') == "known"
    assert is_empty(path)
    [request] = receiver.requests
    signed = b".".join((b"order-17", request["Webhook-Timestamp"].encode(), b'{"order": 17}'))
    expected = base64.b64encode(hmac.digest(b"whisper", signed, hashlib.sha256)).decode()
    assert request["Webhook-Signature"] == f"v1,{expected}"
    assert request["Content-Type"] == "application/json"


def metrics_at(port):
    """Read what the program shows to Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return answer.read().decode()


def test_metrics_tell_of_deliveries_failures_and_what_is_left(path, receiver):
    """As Prometheus reads them."""
    answers = itertools.chain([500], itertools.repeat(200))
    receiver.answer = lambda _request: next(answers)
    send_many(path, {"hook": receiver.url()})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running(path, *QUICK, "--metrics-port", port):
        wait_until(lambda: is_empty(path), "it was delivered")
        of = f'queue="outgoing",spool="{path}"'
        settled = f'multispool_settled_total{{destination="",how="removed",{of}}} 1.0'
        wait_until(lambda: settled in metrics_at(port), "its removal was counted")
        metrics = metrics_at(port)
    assert f'multispool_failed_attempts_total{{error="NotAccepted",outcome="retry",{of}}} 1.0' in metrics
    assert f'multispool_entries{{queue="failed",spool="{path}",state="available"}} 0.0' in metrics


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(path, receiver, tmp_path):
    """By the socket that a `Type=notify` service has."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.settimeout(LIMIT)
        told.bind(str(tmp_path / "notify"))
        with running(path, env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}) as process:
            assert told.recv(100) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert told.recv(100) == b"STOPPING=1"
            assert process.wait(LIMIT) == 0


def test_the_unit_starts_the_program_with_options_that_it_has():
    """And gives it more time to stop than it takes."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names of options are as they are
    unit.read(EXAMPLE / "webhooks.service")
    service = unit["Service"]
    _python, script, *arguments = shlex.split(service["ExecStart"])
    assert Path(script).name == "deliverer.py"
    helped = subprocess.run(
        [sys.executable, str(EXAMPLE / "deliverer.py"), "run", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert arguments[0] == "run"
    assert {each for each in arguments if each.startswith("--")} <= set(re.findall(r"--[a-z-]+", helped))
    assert int(service["TimeoutStopSec"]) > 25
    assert service["Type"] == "notify"
