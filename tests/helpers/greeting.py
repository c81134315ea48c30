"""Workers of `examples/asyncio_worker.py`, at one host or at several, and who gives them work; judged by what they say.

A worker prints a line for each entry, before that is removed. So what a worker had in hand when it died, or was cut
off, may be greeted once more: as many as it works on at a time. Nothing else may, and nothing may be missing.
"""

from __future__ import annotations

import collections
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.children import Child
from helpers.hosts import at
from helpers.schemas import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "asyncio_worker.py"
AT_A_TIME = 4
"""How many entries the program works on at a time."""
SOME = 20


def give_work(parent: Any, place: str, host: str, program: str) -> None:
    """Enqueue until the test says that it is enough; tell whom, and then when everybody has been greeted."""
    import sys
    import threading
    from pathlib import Path

    from helpers.namespaces import enter
    from helpers.schemas import until
    from helpers.spools import state_of
    from trio_multispool import blocking

    sys.path.insert(0, str(Path(program).parent))
    from asyncio_worker import GREETINGS, Greeting, Queue

    if host:
        enter(host)
    enough = threading.Event()
    listening = threading.Thread(target=lambda: (parent.hear(), enough.set()), daemon=True)
    with blocking.Spool.create(place, GREETINGS).unwrap() as spool:
        parent.say("ready")
        listening.start()
        names = []
        while not enough.is_set():
            if len(names) % 20 == 0:
                until(lambda: enough.is_set() or len(state_of(place).entries()) < 60, "somebody works")
            to = f"number {len(names)}"
            spool.enqueue(Queue.GREETINGS, Greeting(to), "Hello").unwrap()
            names.append(to)
        parent.say(*names)
        until(lambda: not state_of(place).entries(), "all have been greeted")
    parent.say("done")


class Work:
    """Who gives work; put `with` around it."""

    def __init__(self, place: str, host: str = "") -> None:
        """Begin."""
        self._child = Child(give_work, place, host, str(PROGRAM))
        assert self._child.hear() == ["ready"]

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._child.__exit__()

    def end(self) -> list[str]:
        """Have nothing more enqueued; return who is to be greeted, when everybody has been."""
        self._child.tell("enough")
        names = self._child.hear()
        assert self._child.hear() == ["done"]
        self._child.end()
        return names


class Worker:
    """One run of the program; put `with` around it."""

    def __init__(self, folder: Path, place: str, host: str = "") -> None:
        """Start it, and wait until it is ready."""
        self._output = folder / f"output {len(list(folder.glob('output *')))}"

        def start() -> subprocess.Popen[bytes]:
            with open(self._output, "wb") as output:
                return subprocess.Popen([sys.executable, PROGRAM, place], stdin=subprocess.DEVNULL, stdout=output)

        self.process = at(host, start) if host else start()
        until(lambda: self._said("ready"), "it is ready")

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, if it still runs."""
        self.process.kill()
        self.process.wait()

    def _lines(self) -> list[str]:
        return self._output.read_text().splitlines()

    def _said(self, word: str) -> bool:
        return word in self._lines()

    def greeted(self) -> list[str]:
        """Return whom it has greeted, in that order."""
        return [line.removeprefix("Hello, ").removesuffix("!") for line in self._lines() if line.startswith("Hello, ")]

    def go_on(self) -> None:
        """Wait until it has done something more, or has ended."""
        since = len(self.greeted())
        until(lambda: len(self.greeted()) > since + SOME or self.has_ended(), "it greets somebody")

    def has_ended(self) -> bool:
        """Tell whether it has ended by itself."""
        return self.process.poll() is not None

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL

    def stop(self) -> None:
        """Tell it to end, which it does when it has done what it has in hand."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait() == 0
        assert self._said("stopped")


class Verdict(NamedTuple):
    """What is wrong, and how many were greeted twice."""

    faults: list[str]
    twice: int


def judge(names: Sequence[str], workers: Sequence[Worker], lost: Sequence[Sequence[str]]) -> Verdict:
    """Compare who was to be greeted with who was.

    `lost`: who had been greeted by those that died, or were cut off, until then: the last ones may have been in hand.
    """
    times = collections.Counter(name for worker in workers for name in worker.greeted())
    faults = [f"{name} was not greeted" for name in names if not times[name]]
    faults += [f"{name} was greeted, and nobody asked for it" for name in set(times) - set(names)]
    again = {name for name, number in times.items() if number > 1}
    excused: set[str] = set()
    for greeted in lost:
        theirs = again & set(greeted[-3 * AT_A_TIME :])
        if len(theirs) > AT_A_TIME:
            faults.append(f"{len(theirs)} were greeted again that one worker had in hand")
        excused |= theirs
    faults += [f"{name} was greeted {times[name]} times" for name in again - excused]
    return Verdict(faults, len(again))
