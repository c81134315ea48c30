"""Make the picture of `multispool top` that the README shows, from a spool on which real processes work.

    $ python docs/pictures/top.py            # writes docs/pictures/top.svg
    $ python docs/pictures/top.py --keep     # leaves the spool and its workers running, to look at it with `top`

A mail server's spool: producers enqueue, workers deliver, a few entries wait to be tried again, some were given up, one
worker was killed while it had an entry, and a deploy has enqueued something that cannot be decoded.
"""

from __future__ import annotations

import argparse
import enum
import io
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import trio
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from trio_multispool import Durability, Spool, Spoolable
from trio_multispool.cli.top.render import Scene, picture
from trio_multispool.cli.top.view import View, settle
from trio_multispool.looks.directory import Looker
from trio_multispool.looks.state import Model, advance, pause_after

PICTURE = Path(__file__).with_suffix(".svg")
COLUMNS, LINES, LOOKS, EVERY = 100, 25, 60, 1.0
BURST, TROUBLED, PAUSE = 10, 0.15, 20.0


class Mail(enum.Enum):
    """The queues."""

    INCOMING = "incoming"
    SEND = "send"
    RETRY = "retry"
    BOUNCE = "bounce"
    FAILED = "failed"


class Envelope(msgspec.Struct):
    """The metadata."""

    recipient: str
    attempts: int = 0


MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes)


async def load(path: str) -> Spool[Mail, Envelope, bytes]:
    """Open the spool."""
    return (await Spool.load(path, MAIL, durability=Durability.PROCESS)).unwrap()


async def produce(path: str) -> None:
    """Enqueue in waves."""
    spool, chance = await load(path), random.Random(1)  # noqa: S311  # it keeps no secret
    for step in itertools.count():
        for _ in range(chance.randrange(6) + (BURST if step % 40 < BURST else 0)):
            (await spool.enqueue(Mail.INCOMING, Envelope("anne@example.org"), b"Dear Anne,\n" * 90)).unwrap()
        await trio.sleep(0.2)


async def work(path: str, queue: str, seconds: float) -> None:
    """Work off a queue, one entry at a time: most go on, some are tried again, some bounce."""
    spool, chance = await load(path), random.Random(os.getpid())  # noqa: S311  # as above
    onward = {Mail.INCOMING: Mail.SEND, Mail.RETRY: Mail.SEND}
    async with spool.reader(Mail(queue), poll_interval=0.1) as reader:
        async for job in reader:
            async with job:
                await trio.sleep(seconds * chance.uniform(0.5, 1.5))
                if (to := onward.get(job.queue)) is not None:
                    (await job.save(to)).unwrap()
                elif chance.random() < TROUBLED:
                    job.update(lambda it: msgspec.structs.replace(it, attempts=it.attempts + 1))
                    to = chance.choice([Mail.RETRY, Mail.RETRY, Mail.BOUNCE])
                    (await job.save(to, not_before=PAUSE if to is Mail.RETRY else None)).unwrap()
                else:
                    (await job.remove()).unwrap()


WORKERS = [
    ("sorter", "incoming", 0.04),
    ("sorter", "incoming", 0.05),
    ("mailer", "send", 0.10),
    ("mailer", "send", 0.12),
    ("mailer", "send", 0.14),
    ("retrier", "retry", 0.8),
]


async def furnish(path: str) -> None:
    """Make the spool, with what has been there for longer."""
    spool = (await Spool.create(path, MAIL, durability=Durability.PROCESS)).unwrap()
    for queue, number, hours in FURNITURE:
        for _ in range(number):
            entry = (await spool.enqueue(queue, Envelope("bert@example.org", 3), b"Dear Bert,\n" * 40)).unwrap()
            age(Path(path, queue.value, entry.name), hours)


FURNITURE = [(Mail.FAILED, 7, 53), (Mail.BOUNCE, 3, 26), (Mail.RETRY, 40, 2), (Mail.SEND, 160, 0.05)]
GARBAGE = ("20261126T013014.265358979Z-deb10700", "20261126T013014.732384626Z-deb10700")


def age(path: Path, hours: float) -> None:
    """Make a file look older than it is."""
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


def set_aside(path: str) -> None:
    """Do by hand what a reader does with entries that a bad deploy has enqueued."""
    for name in GARBAGE:
        for directory in (".quarantine/incoming", ".quarantine/.reasons", ".registry", ".data"):
            Path(path, directory).mkdir(parents=True, exist_ok=True)
            Path(path, directory, name).touch()
        Path(path, ".quarantine/incoming", name).write_text('{"recipient": ["anne@example.org"')
        Path(path, ".quarantine/.reasons", name).write_text("JSON is malformed: input data was truncated\n")


def start(path: str, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start this script as another process, called as a program of a mail server might be."""
    # The kernel names a process after the file it was started from.
    named = Path(path).parent / program
    if not named.exists():
        named.symlink_to(sys.executable)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([named, __file__, "--spool", path, *arguments], env=environment)  # noqa: S603  # itself


def watch(path: str, looks: int) -> Scene:
    """Look again and again, as `top` does."""
    looker, model, pause = Looker(Path(path)), Model(), 0.0
    for _ in range(looks):
        look = looker.look()
        model, pause = advance(model, look), pause_after(look.took, EVERY)
        time.sleep(pause)
    return Scene("/var/spool/mail", model, settle(model, View(column=1)), time.time(), EVERY, pause)


def drawn(scene: Scene) -> str:
    """Return the picture as SVG."""
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=COLUMNS, height=LINES)
    for line in picture(scene, COLUMNS, LINES):
        console.print(line, no_wrap=True, overflow="crop")
    # No fonts from elsewhere, and one name for its styles: made again, it differs in nothing but what it shows.
    frame = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    frame = frame.replace("Fira Code, monospace", "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace")
    drawn = console.export_svg(title="multispool top", theme=MONOKAI, unique_id="top", code_format=frame)
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def demonstrate(scratch: str, *, keep: bool) -> None:
    """Set everything up, and make the picture or wait for Ctrl-C."""
    path = f"{scratch}/mail"
    trio.run(furnish, path)
    set_aside(path)
    _ = signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = [start(path, program, "--work", queue, str(seconds)) for program, queue, seconds in WORKERS]
    started.append(start(path, "intake", "--produce"))
    victim = start(path, "bouncer", "--work", "bounce", "3600")
    try:
        while not any(Path(path, "bounce/.checkout").iterdir()):
            time.sleep(0.1)
        _ = watch(path, 4)
        victim.kill()
        if keep:
            print(f"multispool top {path}", flush=True)
            signal.pause()
        PICTURE.write_text(drawn(watch(path, LOOKS)), encoding="utf-8")
    except KeyboardInterrupt:
        pass
    finally:
        for process in [*started, victim]:
            process.terminate()
        for process in [*started, victim]:
            process.wait()


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description="Make the picture of `multispool top`.")
    parser.add_argument("--keep", action="store_true", help="leave the spool running until Ctrl-C")
    parser.add_argument("--spool", help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--produce", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        trio.run(work, arguments.spool, arguments.work[0], float(arguments.work[1]))
    elif arguments.produce:
        trio.run(produce, arguments.spool)
    else:
        with tempfile.TemporaryDirectory(prefix="multispool-top-") as scratch:
            demonstrate(scratch, keep=arguments.keep)


if __name__ == "__main__":
    main()
