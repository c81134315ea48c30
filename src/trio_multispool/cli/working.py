"""`multispool work`: the command that is run for each entry, and what is told of that."""

import dataclasses
from collections import Counter
from typing import Any, Final, final

import trio

from trio_multispool.cli import child, output
from trio_multispool.cli.exits import Failure, code_of, said
from trio_multispool.cli.progress import Bar
from trio_multispool.cli.running import Ending
from trio_multispool.entries.datafile import DataFile
from trio_multispool.errors import DataNotFound, SpoolError
from trio_multispool.model.cancellation import NO_REASON

_STYLES: Final = {"done": "green", "failed": "red", "returned": "yellow", "cancelled": "yellow"}


@final
@dataclasses.dataclass(frozen=True)
class Command:
    """A command to run for entries."""

    words: tuple[str, ...]
    spool: str
    ending: Ending

    async def run(self, metadata: bytes, data: DataFile[Any], attempt: int | None = None) -> tuple[int | None, str]:
        """Run it for an entry. Return its status, `None` if there is no data to run it on, and how to say it."""
        try:
            async with child.as_file(data) as path:
                task = child.Task(self.spool, str(data.queue.value), data.name, metadata, path, attempt)
                status, told = await child.run_command(self.words, task, self.ending)
        except OSError as error:
            raise Failure(f"cannot start {self.words[0]!r}: {error.strerror}") from error
        except DataNotFound as error:
            return None, str(error)
        except SpoolError as error:  # not of this entry
            raise Failure(said(error), code_of(error)) from error
        if status is not None and child.ended_with_us(status):
            await trio.sleep(child.ECHO)
        return status, told


@final
@dataclasses.dataclass
class Report:
    """Counts what became of the entries, and prints it."""

    quiet: bool
    as_json: bool
    bar: Bar = dataclasses.field(default_factory=Bar)
    begun: bool = False
    """Whether there was work to do or to wait for, so that a summary is printed."""
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    def tell(self, name: str, outcome: str, status: int | None, queue: str | None, told: str, **more: object) -> None:
        """Tell what became of an entry, the `status` of its command, and in which queue it is now, if in any.

        `more` is for scripts alone.
        """
        self.counts[outcome] += 1
        self.bar.advance()
        if self.as_json:
            output.remark(output.encoded({"name": name, "outcome": outcome, "status": status, "queue": queue} | more))
        elif not self.quiet:
            self.bar.remark(output.printable(f"multispool: {name}: {told}"), _STYLES[outcome])

    def tell_done(self, name: str, status: int | None, queue: str | None, **more: object) -> None:
        """Tell of an entry whose command succeeded, and which queue it was moved to, if to any."""
        self.tell(name, "done", status, queue, "done" if queue is None else f"done, moved to {queue}", **more)

    def tell_returned(self, name: str, queue: str) -> None:
        """Tell of an entry whose command did not come to its end, or cannot be started."""
        self.tell(name, "returned", None, queue, f"returned to {queue}")

    def tell_cancelled(self, name: str, queue: str | None, reason: str) -> None:
        """Tell of an entry that somebody has cancelled, and which queue it was moved to, if to any."""
        told = f"cancelled ({reason or NO_REASON}){'' if queue is None else f', now in {queue}'}"
        self.tell(name, "cancelled", None, queue, told, reason=reason)

    def summary(self) -> None:
        """Sum up, once the work has ended."""
        if not self.begun:
            return
        counts = {outcome: self.counts[outcome] for outcome in _STYLES}
        if self.as_json:
            output.remark(output.encoded(counts))
        else:
            more = "".join(f", {each} {counts[each]}" for each in ("returned", "cancelled") if counts[each])
            output.complain(f"done {counts['done']}, failed {counts['failed']}{more}")
