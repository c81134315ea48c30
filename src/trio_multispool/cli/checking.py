"""What `fsck` and `monitor` share: the limits on the command line, a monitor that only looks, and problems in words."""

import contextlib
import dataclasses
import enum
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, Final, TypeAlias

from cyclopts import Parameter

from trio_multispool.cli import output
from trio_multispool.cli.durations import parse
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.sources import Source
from trio_multispool.cli.spools import looking, spoolable
from trio_multispool.looks.ages import human_age
from trio_multispool.model.codecs import Json
from trio_multispool.model.spoolable import Spoolable
from trio_multispool.monitor import Limits, Monitor, Problem
from trio_multispool.session.stores import Opened, look_at_store, open_store_unsafe
from trio_multispool.spool.spool import open_spool

_JsonMetadata: TypeAlias = Annotated[
    bool,
    Parameter(
        help="Metadata has to be JSON: report what is not; `fsck --repair` sets it aside. Without this, any will do.",
    ),
]


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Checks:
    """The options that say what counts as a problem."""

    max_checked_out_age: Annotated[
        str, Parameter(help="How long an entry may be checked out; `none` for any time.")
    ] = "10m"
    max_tmp_file_age: Annotated[str, Parameter(help="How long a temporary file may go without a write.")] = "10m"
    max_age: Annotated[
        list[str] | None,
        Parameter(
            help="`QUEUE=AGE`: how long an entry may wait there. May be repeated; `--max-QUEUE-age AGE` is the same."
        ),
    ] = None
    json_metadata: _JsonMetadata = False


AS_USUAL: Final = Checks()
"""Without any of the options."""

QueueAges: TypeAlias = Annotated[str, Parameter(show=False)]
"""Any further option: `--max-QUEUE-age`, for a queue that is found on disk."""

AnyMonitor: TypeAlias = Monitor[enum.Enum, bytes, Source]

_QUEUE_AGE: Final = re.compile(r"max[-_](.+)[-_]age")
_NO_QUEUE: Final = "none"
_NO_LIMIT: Final = "none"


def limits(spool: str, checks: Checks, queue_ages: Mapping[str, str]) -> Limits:
    """Return the limits that the options ask for; ends the command if one is invalid, or a queue does not exist."""
    ages: dict[str, str] = {}
    for pair in checks.max_age or []:
        queue, equals, age = pair.rpartition("=")
        if not equals or not queue:
            raise Failure(f"--max-age wants QUEUE=AGE, not {pair!r}", Exit.USAGE)
        ages[queue] = age
    for option, age in queue_ages.items():
        found = _QUEUE_AGE.fullmatch(option.removeprefix("--"))
        if found is None:
            raise Failure(f'Unknown option: "--{option}". See multispool --help', Exit.USAGE)
        ages[found[1]] = age
    checked = Limits(
        max_checked_out_age=_limit(checks.max_checked_out_age),
        max_tmp_file_age=_limit(checks.max_tmp_file_age),
        max_queue_ages={queue: parse(age) for queue, age in ages.items() if age != _NO_LIMIT},
    )
    with looking(spool, *ages):
        return checked


def _limit(age: str) -> float | None:
    return None if age == _NO_LIMIT else parse(age)


@contextlib.asynccontextmanager
async def monitoring(
    path: str, limits: Limits, *, json_metadata: bool = False, repairs: bool = False
) -> AsyncGenerator[AnyMonitor]:
    """Open a spool to check it: nothing is recovered, and nothing written unless it `repairs`."""
    with looking(path) as storage:
        queues = storage.queues()
    of = spoolable(queues or [_NO_QUEUE])
    if json_metadata:
        of = Spoolable(queues=of.queues, metadata=Json[Any](object), data=of.data)

    def opening() -> Opened:
        return open_store_unsafe(path) if repairs else Opened(look_at_store(path), [])

    async with (await open_spool(path, of, None, opening)).unwrap() as spool:
        yield Monitor(spool, limits)


def in_words(problem: Problem) -> str:
    """Say a problem, and how old it is, in a line for a terminal."""
    return f"{output.printable(problem.message)} ({human_age(problem.age)})"


def document(problem: Problem) -> dict[str, object]:
    """Describe a problem for a script."""
    found: dict[str, object] = {
        "problem": type(problem).__name__,
        "name": output.as_text(problem.name),
        "dir": output.as_text(problem.dir.path),
        "queue": None if problem.queue is None else output.as_text(problem.queue),
        "age": max(0.0, problem.age),
        "message": output.as_text(problem.message),
        "remedy": output.as_text(problem.remedy),
    }
    if dirs := getattr(problem, "dirs", ()):
        found["dirs"] = [output.as_text(each.path) for each in dirs]
    return found
