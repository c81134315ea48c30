"""A webhook deliverer: it posts what is enqueued until it is accepted, and loses nothing.

    python deliverer.py run SPOOL                     # deliver, until SIGTERM
    python deliverer.py send SPOOL ID URL < body      # enqueue one; the same ID twice is one webhook

What fails is tried again, after a wait that grows, and is a dead letter in the end (`multispool show` says why, and
`multispool retry SPOOL failed outgoing --all` gives it another chance). One slow host has a few connections, and the
others do not wait for it. See README.md beside this file.
"""

import argparse
import base64
import contextlib
import enum
import functools
import hashlib
import hmac
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import trio
from prometheus_client import REGISTRY, start_http_server

from trio_multispool import (
    DataFile,
    Exponential,
    GiveUp,
    QueueReader,
    Remove,
    Retention,
    Retry,
    RetryLater,
    Spool,
    Spoolable,
    Use,
    Verdict,
)
from trio_multispool.integrations.prometheus import Prometheus, SpoolCollector

LOG = logging.getLogger("webhooks")
GONE, TOO_MANY_REQUESTS, UNAVAILABLE = 410, 429, 503


class Queue(enum.Enum):
    """The queues."""

    OUTGOING = "outgoing"
    FAILED = "failed"


class Hook(msgspec.Struct, frozen=True):
    """The metadata; the data is the body."""

    url: str
    content_type: str = "application/json"

    @property
    def host(self) -> str:
        """Whose connections are limited together."""
        return urlsplit(self.url).netloc


HOOKS = Spoolable(queues=Queue, metadata=Hook, data=bytes)


class NotAccepted(Exception):
    """The receiver answered, and did not say that it has the webhook."""


class Deliverer:
    """Posts webhooks, signed as the Standard Webhooks specification says (github.com/standard-webhooks)."""

    def __init__(self, client: httpx.AsyncClient, secret: bytes, longest_wait: float) -> None:
        """Use a client; sign with a secret, unless it is empty."""
        self._client = client
        self._secret = secret
        self._longest_wait = longest_wait

    async def __call__(self, hook: Hook, body: DataFile[bytes]) -> Verdict[Queue, Hook]:
        """Post one, and say what is to become of it; what is raised is tried again."""
        content = (await body.load()).unwrap()
        response = await self._client.post(hook.url, content=content, headers=self._headers(hook, body, content))
        if response.is_success:
            return Remove()
        if response.status_code == GONE:
            return GiveUp("410: the receiver wants no more of these")
        if response.status_code in {TOO_MANY_REQUESTS, UNAVAILABLE}:
            wait = response.headers.get("Retry-After", "")
            if wait.isascii() and wait.isdigit():  # it may be a date, which is left to the backoff
                return RetryLater(min(float(wait), self._longest_wait), f"{response.status_code}, retry after {wait}")
        raise NotAccepted(f"{response.status_code} {response.reason_phrase}: {response.text[:200]}")

    def _headers(self, hook: Hook, body: DataFile[bytes], content: bytes) -> dict[str, str]:
        sent_at = str(int(time.time()))
        headers = {
            "Content-Type": hook.content_type,
            "Webhook-Id": body.name,  # the same at each attempt: receivers know by it what they have
            "Webhook-Timestamp": sent_at,
            "Webhook-Attempt": str(body.attempt),
        }
        if self._secret:
            signed = b".".join((body.name.encode(), sent_at.encode(), content))
            digest = hmac.digest(self._secret, signed, hashlib.sha256)
            headers["Webhook-Signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return headers


async def run(options: argparse.Namespace) -> None:
    """Deliver until SIGTERM or Ctrl-C, then give what is under way some time, and return the rest."""
    retry = Retry(
        attempts=options.attempts,
        backoff=Exponential(first=options.first_wait, factor=2, max=options.longest_wait, jitter=0.5),
        on=(httpx.HTTPError, NotAccepted, TimeoutError),  # all else is a bug, or a URL that is none
        dead_letter=Queue.FAILED,
    )
    connections = httpx.Limits(max_connections=options.concurrency, max_keepalive_connections=options.concurrency)
    async with (
        opened(options) as spool,
        httpx.AsyncClient(limits=connections, timeout=options.time_limit, follow_redirects=False) as client,
        spool.reader(Queue.OUTGOING, limit_by=lambda hook: hook.host, limit=options.per_host) as reader,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(drain_when_told, reader, options.grace)
        nursery.start_soon(forget_old_dead_letters, spool, timedelta(days=options.keep_failed_days))
        notify("READY=1")
        LOG.info("delivering from %s", spool.path)
        deliver = Deliverer(client, options.secret, options.longest_wait)
        answer = await reader.iter(deliver, concurrency=options.concurrency, time_limit=options.time_limit, retry=retry)
        nursery.cancel_scope.cancel()
        answer.unwrap()
    LOG.info("stopped")


@contextlib.asynccontextmanager
async def opened(options: argparse.Namespace) -> AsyncIterator[Spool[Queue, Hook, bytes]]:
    """Open the spool, with its metrics if a port for them was given."""
    instrumentation = None
    if options.metrics_port is not None:
        instrumentation = Prometheus()
        REGISTRY.register(SpoolCollector(options.spool))
        start_http_server(options.metrics_port, addr="127.0.0.1")
    async with (await Spool.create(options.spool, HOOKS, instrumentation=instrumentation)).unwrap() as spool:
        yield spool


async def drain_when_told(
    reader: QueueReader[Queue, Hook, bytes], grace: float, *, task_status: trio.TaskStatus[None]
) -> None:
    """Wait for a signal; then take nothing new, and cancel after a while what is still under way."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            notify("STOPPING=1")
            LOG.info("%s: %g seconds for what is under way", signal.Signals(number).name, grace)
            reader.drain(grace)


async def forget_old_dead_letters(spool: Spool[Queue, Hook, bytes], age: timedelta) -> None:
    """Let go of dead letters that nobody has looked after for long, each with a line in the log."""

    async def tell(hook: Hook, body: DataFile[bytes]) -> Remove:
        LOG.warning("dead letter %s for %s is %s old, and dropped", body.name, hook.url, age)
        return Remove()

    while True:
        (await spool.expire(Queue.FAILED, Retention(max_age=age), before_expiry=tell)).unwrap()
        await trio.sleep(3600)


def notify(state: str) -> None:
    """Tell systemd, if it wants to know (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


async def send(options: argparse.Namespace) -> None:
    """Enqueue one webhook; when this returns, it is on disk."""
    if not options.url.startswith(("http://", "https://")):
        raise SystemExit(f"not a URL of the web: {options.url}")
    body = sys.stdin.buffer.read()
    once = Use(options.id, remember=timedelta(days=options.remember_days))
    async with (await Spool.create(options.spool, HOOKS)).unwrap() as spool:
        hook = Hook(options.url, options.content_type)
        entry = (await spool.enqueue_if_absent(Queue.OUTGOING, hook, body, name=once)).unwrap()
    print("enqueued" if entry else "known")


def read_secret(path: str) -> bytes:
    """Read the secret that a file holds."""
    try:
        return Path(path).read_bytes().strip()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from error


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Deliver webhooks.")
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="deliver, until SIGTERM")
    running.set_defaults(do=run)
    running.add_argument("spool")
    running.add_argument("--concurrency", type=int, default=64, help="requests at a time")
    running.add_argument("--per-host", type=int, default=4, help="of those, to one host, in all processes together")
    running.add_argument(
        "--attempts", type=int, default=16, help="before it is a dead letter: with these waits, 2 days"
    )
    running.add_argument("--first-wait", type=float, default=10, metavar="SECONDS")
    running.add_argument("--longest-wait", type=float, default=6 * 3600, metavar="SECONDS")
    running.add_argument("--time-limit", type=float, default=20, metavar="SECONDS", help="for one request")
    running.add_argument("--grace", type=float, default=25, metavar="SECONDS", help="for what is under way at the end")
    running.add_argument("--keep-failed-days", type=float, default=30, metavar="DAYS")
    running.add_argument("--metrics-port", type=int, help="for Prometheus, on 127.0.0.1")
    running.add_argument("--secret-file", dest="secret", type=read_secret, default=b"", help="to sign with")
    sending = commands.add_parser("send", help="enqueue a webhook, whose body is standard input")
    sending.set_defaults(do=send)
    sending.add_argument("spool")
    sending.add_argument("id", help="of the event; a second one of the same ID is not sent")
    sending.add_argument("url")
    sending.add_argument("--content-type", default="application/json")
    sending.add_argument("--remember-days", type=float, default=7, metavar="DAYS")
    return parser.parse_args(arguments)


def main() -> None:
    """Do what the command line says."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request, otherwise
    options = parsed()
    trio.run(functools.partial(options.do, options))


if __name__ == "__main__":
    main()
