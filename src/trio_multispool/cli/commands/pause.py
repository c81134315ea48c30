"""`multispool pause` and `multispool resume`: have readers take nothing new from a queue, and have them go on."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli import durations, output
from trio_multispool.cli.arguments import AsJson, Location, QueueName, TrustFileSystem
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.spools import looking, opened
from trio_multispool.looks.pauses import until
from trio_multispool.model.pauses import Pause, new_pause
from trio_multispool.model.times import aware


def pause(  # noqa: PLR0913  # what a person can say on the command line
    spool: Location,
    queue: QueueName,
    /,
    *,
    for_: Annotated[
        str | None, Parameter(name="--for", help="For how long, for example `10m`. Without it: until `resume`.")
    ] = None,
    reason: Annotated[str, Parameter(help="Why, for people: `ls` and `top` show it.")] = "",
    as_json: AsJson = False,
    trust_file_system: TrustFileSystem = False,
) -> None:
    """Have readers take nothing new from a queue.

    All readers in all processes know of it within a second. What is in hand goes on. Entries may still be enqueued,
    and what dead workers had comes back. The pause outlives the programs, and a restart of the machine. It ends by
    `resume`, or when its time is over. A queue that is paused is paused anew.

    ```console
    $ multispool pause var/mail send --for 10m --reason "the relay is being replaced"
    $ multispool resume var/mail send
    ```
    """
    length = None if for_ is None else durations.parse(for_)
    if length is not None and not length:
        raise Failure(f"--for wants more than {for_!r}", Exit.USAGE)
    with looking(spool, queue):
        pass
    with opened(spool, queue, trust_file_system=trust_file_system) as storage:
        now = storage.now()
        made = new_pause(now, length, reason)
        storage.pause(queue, made)
    if as_json:
        output.outcome_document({"queue": output.as_text(queue), "pause": described(made)})
    else:
        output.outcome_line(f"{output.printable(queue)}: paused {output.printable(until(made, now))}")


def resume(
    spool: Location, queue: QueueName, /, *, as_json: AsJson = False, trust_file_system: TrustFileSystem = False
) -> None:
    """End the pause of a queue: readers go on within a second.

    It is no error if the queue is not paused.

    ```console
    $ multispool resume var/mail send
    ```
    """
    with looking(spool, queue):
        pass
    with opened(spool, queue, trust_file_system=trust_file_system) as storage:
        found = storage.pauses().get(queue)
        was_paused = found is not None and not found.is_over(storage.now())
        storage.resume(queue)
    if as_json:
        output.outcome_document({"queue": output.as_text(queue), "was_paused": was_paused})
    else:
        output.outcome_line(f"{output.printable(queue)}: {'goes on' if was_paused else 'was not paused'}")


def described(pause: Pause | None) -> dict[str, object] | None:
    """Describe a pause for a script."""
    if pause is None:
        return None
    ends = None if pause.until is None else aware(pause.until)
    return {"since": aware(pause.since), "until": ends, "reason": pause.reason}
