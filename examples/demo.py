"""Many processes share a spool, one of them is killed in the middle of its work, and nothing is lost.

Run it with `nox -s demo`, or `python examples/demo.py [FOLDER]`. It makes a spool in a temporary folder, or where
`--spool` says: `nox -s demo -- --postgresql` starts a server for it, which is the only difference. Two producer
processes enqueue every file of FOLDER (by default, of this checkout). Four worker processes work the entries off: each
writes the SHA-256 of a file into the entry's metadata and saves the entry to a second queue. One worker is killed with
SIGKILL while it holds an entry, and another has to do that entry in its place. At the end every digest is compared with
the file itself. The last line says what came of it:

    demo: enqueued N, done N, lost 0, twice 0, recovered K

The exit status is 0 only if both N are the number of files, nothing was lost or done twice, and K is at least 1. Every
number is counted from what the processes reported and from what is in the spool at the end; nothing is assumed.

Producers and workers are this same script. They report to the parent in lines of JSON on their standard output. A
producer is given its files on its standard input, and a worker ends when its standard input is closed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import enum
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec
import trio
from demo_files import compare, find_files
from demo_progress import Progressing
from rich.console import Console

from trio_multispool import CheckedOutEntry, Durability, Err, Ok, QueueReader, Spool, Spoolable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PRODUCERS = 2
WORKERS = 4
AT_A_TIME = 4
"""How many entries a producer enqueues, and a worker works on, at a time."""
HOLDS_ITS = 5
"""The victim holds on to its fifth entry, or to the last if there are fewer."""
MOST_COMPLAINTS = 10
CHECKOUT = Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------------------------------ what the spool holds


class Work(enum.Enum):
    """The queues."""

    TODO = "todo"
    DONE = "done"


class File(msgspec.Struct):
    """The metadata. The path is quoted as in a URL, because a file's name need not be text."""

    path: str
    size: int
    sha256: str = ""


class Content(msgspec.Struct):
    """The data, which is never whole in memory: the file to read it from, and afterwards what was read."""

    source: Path
    size: int = 0
    sha256: str = ""


class ContentCodec:
    """Copies a file into the spool, and reads it there, block by block."""

    def dump(self, value: Content, file: BinaryIO, /) -> None:
        """Copy the source."""
        with value.source.open("rb") as source:
            shutil.copyfileobj(source, file)

    def load(self, file: BinaryIO, /) -> Content:
        """Measure and hash what is in the spool."""
        digest = hashlib.file_digest(file, "sha256")
        return Content(Path(), file.tell(), digest.hexdigest())


SPOOL = Spoolable(queues=Work, metadata=File, data=ContentCodec())


# ------------------------------------------------------------------------------------------ producers and workers


def report(**event: str) -> None:
    """Tell the parent; one `write` of one line, so that a SIGKILL never tears it."""
    os.write(sys.stdout.fileno(), json.dumps(event).encode() + b"\n")


async def produce(path: str, folder: Path) -> None:
    """Enqueue the files whose names come, each with a NUL after it, on standard input."""
    spool = (await Spool.load(path, SPOOL, durability=Durability.POWER)).unwrap()
    names = iter(sys.stdin.buffer.read().split(b"\0")[:-1])

    async def enqueue_files() -> None:
        for name in names:  # all tasks draw from one iterator
            source = folder / os.fsdecode(name)
            file = File(quote_from_bytes(name), source.stat().st_size)
            entry = (await spool.enqueue(Work.TODO, file, Content(source))).unwrap()
            report(event="enqueued", name=entry.name)  # not before `Ok`: from here on it must survive everything

    async with trio.open_nursery() as nursery:
        for _ in range(AT_A_TIME):
            nursery.start_soon(enqueue_files)


async def work(path: str, hold: int) -> None:
    """Hash the entries of the queue `todo` and save them to `done`, until standard input is closed.

    With `hold`, this is the victim: it works on one entry at a time, says so when it has checked out its `hold`-th, and
    then does nothing more for ever: it waits to be killed, and SIGKILL leaves no time to return anything.
    """
    spool = (await Spool.load(path, SPOOL, durability=Durability.POWER)).unwrap()
    seen = 0

    async def work_off(reader: QueueReader[Work, File, Content]) -> None:
        nonlocal seen
        async for job in reader:
            async with job:
                seen += 1
                if seen == hold:
                    report(event="holding", name=job.name)
                    await trio.sleep_forever()
                await work_on(job)

    async with spool.reader(Work.TODO, poll_interval=0.05) as reader, trio.open_nursery() as nursery:
        for _ in range(1 if hold else AT_A_TIME):
            nursery.start_soon(work_off, reader)
        await stdin_closed()
        reader.stop()
        if hold:
            nursery.cancel_scope.cancel()  # the parent is no more, and nobody will kill this process


async def work_on(job: CheckedOutEntry[Work, File, Content]) -> None:
    """Do one entry, and report it once it is saved."""
    content = (await job.data.load()).unwrap()
    checked = msgspec.structs.replace(job.metadata, size=content.size, sha256=content.sha256)
    (await job.save(Work.DONE, checked)).unwrap()
    report(event="done", name=job.name)  # not before `Ok`


async def stdin_closed() -> None:
    """Wait until the parent closes the pipe to say that all is done, or is no more."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        while await stdin.receive_some():
            pass


# ------------------------------------------------------------------------------------------------------ the parent


class DemoError(Exception):
    """What ends the demonstration early; its text is for the person who runs it."""


class Reports:
    """What the processes have told so far."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.enqueued: collections.Counter[str] = collections.Counter()
        """How often each name was acknowledged."""
        self.done: collections.Counter[str] = collections.Counter()
        """How often each name was reported done."""
        self.done_by: dict[str, int] = {}
        """Which process did it."""
        self.held: dict[int, str] = {}
        """Which entry a process told that it holds."""
        self.killed: int | None = None
        """Which process was killed."""
        self.stolen: set[str] = set()
        """What a process did while another, living one held it."""
        self.began = self.ended = 0.0
        """When the first enqueue was acknowledged, and when the last report came."""

    def note(self, process: int, event: str, name: str) -> None:
        """Take down one report."""
        self.ended = trio.current_time()
        if event == "holding":
            self.held[process] = name
        elif event == "enqueued":
            self.began = self.began or self.ended
            self.enqueued[name] += 1
        elif event == "done":
            self.done[name] += 1
            self.done_by[name] = process
            self.stolen |= {name} & {held for holder, held in self.held.items() if holder != self.killed}

    def recovered(self) -> set[str]:
        """Return what the killed process held, and another process did."""
        held = {name for process, name in self.held.items() if process == self.killed}
        return {name for name in held if self.done_by.get(name, self.killed) != self.killed}


class Processes:
    """Starts producers and workers, listens to them, kills one, and ends them all."""

    def __init__(self, folder: Path, files: list[bytes], path: str, progress: Progressing) -> None:
        """Take what is to be enqueued, and where the spool is."""
        self._folder = folder
        self._files = files
        self._path = path
        self._progress = progress
        self._started: list[trio.Process] = []
        self._changed = trio.Event()
        self.reports = Reports()

    async def run(self) -> None:
        """Return when all entries are done and all processes have ended, or raise `DemoError`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show)
            try:
                await self._direct(nursery)
            finally:
                for process in self._started:  # each by its own number, whatever happened
                    if process.poll() is None:
                        process.kill()
                with trio.CancelScope(shield=True):
                    for process in self._started:
                        await process.wait()
            nursery.cancel_scope.cancel()

    async def _direct(self, nursery: trio.Nursery) -> None:
        expected, reports = len(self._files), self.reports
        for number in range(PRODUCERS):
            share = b"".join(name + b"\0" for name in self._files[number::PRODUCERS])
            producer = await self._start(nursery, "--produce", str(self._folder))
            nursery.start_soon(self._hand_over, producer, share)
        # The victim starts first, and the others once it holds its entry: however few files there are, it gets one.
        victim = await self._start(nursery, "--work", str(min(HOLDS_ITS, expected)))
        await self._until(lambda: victim.pid in reports.held)
        others = [await self._start(nursery, "--work", "0") for _ in range(WORKERS - 1)]
        # While the victim lives, its entry is its own; everything else goes on. It is killed when half is done.
        await self._until(lambda: len(reports.done) >= expected // 2)
        os.kill(victim.pid, signal.SIGKILL)
        reports.killed = victim.pid
        self._progress.say(f"killed process {victim.pid} with SIGKILL while it held entry {reports.held[victim.pid]}")
        await self._until(lambda: len(reports.enqueued) == len(reports.done) == expected)
        for process in others:
            assert process.stdin is not None
            await process.stdin.aclose()
        await self._until(lambda: all(process.poll() is not None for process in self._started))

    async def _start(self, nursery: trio.Nursery, *arguments: str) -> trio.Process:
        process = await trio.lowlevel.open_process(
            [sys.executable, __file__, *arguments, "--spool", self._path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for the parent, which ends the others
        )
        self._started.append(process)
        nursery.start_soon(self._listen, process)
        return process

    async def _hand_over(self, producer: trio.Process, share: bytes) -> None:
        assert producer.stdin is not None
        with contextlib.suppress(trio.BrokenResourceError):  # it ended early, and `_listen` says so
            async with producer.stdin:
                await producer.stdin.send_all(share)

    async def _listen(self, process: trio.Process) -> None:
        assert process.stdout is not None
        async for line in lines(process.stdout):
            self.reports.note(process.pid, **json.loads(line))
            self._tell()
        status = await process.wait()
        self._tell()
        if status != 0 and process.pid != self.reports.killed:
            raise DemoError(f"process {process.pid} ended with status {status}")

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    async def _show(self) -> None:
        while True:
            self._progress.show(len(self.reports.enqueued), len(self.reports.done))
            await trio.sleep(0.1)


async def judge(folder: Path, files: list[bytes], path: str, reports: Reports, say: Callable[[str], None]) -> bool:
    """Compare the reports, the spool and the files; say what is wrong, and the last line. Tell whether all is well."""
    # Unsafe, because `load` recovers: what stands in the spool now is to be seen as it is.
    async with (await Spool.load_unsafe(path, SPOOL)).unwrap() as spool:
        finished = (await spool.entries(Work.DONE)).unwrap()
        done = {entry.name: (await entry.direct.contents()).unwrap() for entry in finished}
        left = [entry.name for entry in (await spool.entries(Work.TODO)).unwrap()]
        left += [job.name for job in (await spool.checkouts_unsafe(Work.TODO)).unwrap()]

    lost = reports.enqueued.keys() - done.keys()
    seen = (reports.enqueued, reports.done, [*done, *left], [file.path for file in done.values()])
    twice = {thing for things in seen for thing, times in collections.Counter(things).items() if times > 1}
    twice |= reports.stolen
    recovered = reports.recovered()

    wrong = [f"entry {name} was acknowledged, and is not in the queue `done`" for name in sorted(lost)]
    wrong += [f"{thing} was done, or is in the spool, more than once" for thing in sorted(twice)]
    wrong += [f"entry {name} was not done" for name in sorted(left)]
    wrong += compare(folder, files, {unquote_to_bytes(it.path): (it.size, it.sha256) for it in done.values()})
    if not recovered:
        wrong.append("no entry of a killed worker was done by another")
    if not len(files) == len(reports.enqueued) == len(reports.done):
        wrong.append(f"there are {len(files)} files to enqueue and to do")
    for line in wrong[:MOST_COMPLAINTS]:
        say(line)
    if len(wrong) > MOST_COMPLAINTS:
        say(f"and {len(wrong) - MOST_COMPLAINTS} more complaints")
    if elapsed := reports.ended - reports.began:
        speed = f"{len(reports.done)} entries in {elapsed:.2f} s, {len(reports.done) / elapsed:.0f} entries per second"
        say(f"{speed}, from the first enqueue to the last save, with the kill and the recovery")
    say(
        f"enqueued {len(reports.enqueued)}, done {len(reports.done)}, lost {len(lost)}, twice {len(twice)}, "
        f"recovered {len(recovered)}"
    )
    return not wrong


async def lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    """Yield the lines of a stream; one that is not complete at the end is none."""
    buffered = b""
    async for received in stream:
        *complete, buffered = (buffered + received).split(b"\n")
        for line in complete:
            yield line


async def demonstrate(folder: Path, seconds: float, given: str | None) -> bool:
    """Run the demonstration in a temporary folder, or in a new spool at the location that is given.

    Takes so many seconds at most. Tells whether all is well.
    """
    files = find_files(folder)
    with tempfile.TemporaryDirectory(prefix="multispool-demo-") as scratch:
        location = given or f"{scratch}/spool"
        say = (progress := Progressing(Console(), len(files))).say
        say(f"{len(files)} files of {folder}, {PRODUCERS} producers, {WORKERS} workers, in a spool at {location}")
        if not files:
            say("there is nothing to enqueue")
            return False
        match await Spool.create(location, SPOOL, durability=Durability.POWER):
            case Ok(spool):
                left = [*(await spool.entries(Work.TODO)).unwrap(), *(await spool.entries(Work.DONE)).unwrap()]
                spool.close()
            case Err(error):
                say(str(error) if given else f"{error}; set TMPDIR to a folder on another disk")
                return False
        if left:
            say("there are entries in it; give the location of a new spool")
            return False
        processes = Processes(folder, files, location, progress)
        finished = False
        try:
            with progress, trio.fail_after(seconds):
                await processes.run()
            finished = True
        except* trio.TooSlowError:
            say(f"not done within {seconds:g} seconds; all processes were ended")
        except* DemoError as errors:
            say(f"{errors.exceptions[0]}; all processes were ended")
        except* KeyboardInterrupt:
            say("interrupted; all processes were ended")
        return await judge(folder, files, location, processes.reports, say) and finished


def main() -> int:
    """Do what the arguments say; return the exit status."""
    parser = argparse.ArgumentParser(description="Many processes share a spool; one is killed, and nothing is lost.")
    parser.add_argument("folder", nargs="?", type=Path, default=CHECKOUT, help="enqueue its files (this checkout)")
    parser.add_argument("--timeout", type=float, default=300, help="give up after so many seconds (300)")
    parser.add_argument("--spool", metavar="LOCATION", help="where to make it: a path, or postgresql://…")
    # How the parent calls the others.
    parser.add_argument("--produce", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", metavar="HOLD", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.produce is not None:
        trio.run(produce, arguments.spool, arguments.produce)
    elif arguments.work is not None:
        trio.run(work, arguments.spool, arguments.work)
    elif not trio.run(demonstrate, arguments.folder.resolve(), arguments.timeout, arguments.spool):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
