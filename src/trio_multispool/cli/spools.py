"""Opening a spool of any program: to look at it, or to work on some of its queues."""

import contextlib
import difflib
import enum
import functools
from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias, cast, final

from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.output import printable
from trio_multispool.cli.sources import Source, SourceCodec
from trio_multispool.entries.job import CheckedOutEntry
from trio_multispool.instrumentation import How, Instrumentation, Settled
from trio_multispool.looks.seen import AnyStorage as AnyStorage  # noqa: PLC0414  # the commands import it from here
from trio_multispool.model.codecs import Bytes
from trio_multispool.model.spoolable import Spoolable
from trio_multispool.model.types import T
from trio_multispool.session.stores import is_directory, look_at_store, open_store, without_secrets
from trio_multispool.spool.spool import Spool, open_spool

AnySpool: TypeAlias = Spool[enum.Enum, bytes, Source]
"""A spool whose metadata is taken as it is, and whose data is streamed."""


@contextlib.contextmanager
def looking(path: str, *queues: str | None) -> Generator[AnyStorage]:
    """Open a spool to look at it: nothing is written, recovered or locked. These queues must be there."""
    with contextlib.closing(with_its_extra(functools.partial(look_at_store, path))) as storage:
        require_queues(storage, *queues)
        yield storage


def opened(path: str, *queues: str, trust_file_system: bool, recover: bool = False) -> contextlib.closing[AnyStorage]:
    """Open a spool to change it, without tasks."""
    refuse_on_a_server(path, "--trust-file-system", said=trust_file_system)
    opening = functools.partial(open_store, path, queues, trust_file_system=trust_file_system, recover=recover)
    return contextlib.closing(with_its_extra(opening).storage)


def with_its_extra(act: Callable[[], T]) -> T:
    """Do something; end the command if that takes an extra that is not installed."""
    try:
        return act()
    except ModuleNotFoundError as error:
        raise Failure(str(error), Exit.USAGE) from error


def refuse_on_a_server(location: str, what: str, *, said: bool, code: int = Exit.USAGE) -> None:
    """End the command if `what` was said, which is about directories, of a spool that is on a server."""
    if said and not is_directory(location):
        raise Failure(f"{what} is about directories, and {without_secrets(location)} is not one", code)


def spoolable(queues: Sequence[str]) -> Spoolable[enum.Enum, bytes, Source]:
    """Describe a spool with these queues, whatever its program keeps in them."""
    # Found on disk, a queue may be called what no member of an enum can be (`mro`, `a b`): members are numbered.
    members = {f"Q{number}": queue for number, queue in enumerate(dict.fromkeys(queues))}
    make = cast("Callable[[str, dict[str, str]], type[enum.Enum]]", enum.Enum)
    return Spoolable(queues=make("Queues", members), metadata=Bytes(), data=SourceCodec())


def member(spool: AnySpool, queue: str) -> enum.Enum:
    """Return the member that stands for a queue that the spool was loaded with."""
    return spool.spoolable.queues(queue)


async def settle(spool: AnySpool, job: CheckedOutEntry[enum.Enum, bytes, Source], queue: str | None) -> None:
    """Move a checked-out entry to a queue that the spool was loaded with, or remove it if that is `None`."""
    (await job.remove() if queue is None else await job.save(member(spool, queue))).unwrap()


@final
class Done(Instrumentation):
    """Notes what was moved or removed, also if an error or a signal keeps the command from hearing of it otherwise."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []
        """Their names, and the queues that they were in."""

    def on_settle(self, settled: Settled) -> None:
        """Note it, unless it is back where it was."""
        if settled.how in {How.SAVED, How.REMOVED}:
            self.entries.append((settled.entry, settled.queue))


async def load(
    path: str,
    queues: Sequence[str],
    *,
    trust_file_system: bool,
    recover: bool = True,
    told: Instrumentation | None = None,
) -> AnySpool:
    """Open a spool to work on some of its queues, which must be there; `recover` what the dead had.

    `told` hears of what is done.
    """
    refuse_on_a_server(path, "--trust-file-system", said=trust_file_system)
    with looking(path, *queues):
        pass

    wanted = list(dict.fromkeys(queues))
    opening = functools.partial(open_store, path, wanted, trust_file_system=trust_file_system, recover=recover)
    return (await open_spool(path, spoolable(queues), None, opening, told)).unwrap()


def require_queues(storage: AnyStorage, *queues: str | None) -> None:
    """End the command if a queue does not exist, and name those that do. `None` is passed over."""
    wanted = [queue for queue in queues if queue is not None]
    found = storage.queues() if wanted else []
    for queue in wanted:
        if queue not in found:
            known = ", ".join(map(printable, found)) or "no queues"
            near = "".join(f"; did you mean {each!r}?" for each in difflib.get_close_matches(queue, found, 1))
            told = f"there is no queue {queue!r} in {storage.location!r}; it has: {known}{near}"
            raise Failure(told, Exit.NOT_FOUND)


def withdraw_nothing() -> None:
    """Answer a store that asks right before its commit. Go on: to be interrupted there is safe."""
