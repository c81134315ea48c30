"""`multispool monitor`: check a spool continuously, and tell when a problem starts and when it ends."""

import datetime
import signal
from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli import checking, output
from trio_multispool.cli.arguments import AsJson, Location
from trio_multispool.cli.checking import AS_USUAL, Checks, QueueAges
from trio_multispool.cli.durations import parse
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.running import BY_SIGNAL, Ending, run
from trio_multispool.clock import wall_clock
from trio_multispool.looks.ages import human_time
from trio_multispool.monitor import Problem, Start


def monitor(  # noqa: PLR0913  # the options of the command
    spool: Location,
    /,
    *,
    check_every: Annotated[str, Parameter(help="How often to check.")] = "15s",
    alert_after: Annotated[
        int,
        Parameter(
            name=["--alert-after-cycles", "--alert-after"],
            help="Report a problem after this many checks in a row have found it.",
        ),
    ] = 2,
    once: Annotated[bool, Parameter(help="Check once, tell what is wrong, and end: for cron.")] = False,
    checks: Checks = AS_USUAL,
    as_json: AsJson = False,
    **queue_ages: QueueAges,
) -> int:
    """Check a spool continuously, and tell when a problem starts and when it ends.

    The problems are those of `multispool fsck`. Each event is a line on standard output, written at once: the time,
    `start` or `end`, and the problem; with `--json`, an object. It only looks: nothing is changed or recovered.

    It runs until a signal ends it. Exit codes: 0 after SIGTERM, which is how systemd stops it; 130 after Ctrl-C; the
    code of the error if the spool cannot be checked any more, so that `Restart=on-failure` starts it again. With
    `--once`: 0 if nothing is wrong, 7 if something is.

    ```console
    $ multispool monitor var/mail --max-send-age 1h
    $ multispool monitor var/mail --once || mail -s "the spool needs you" anne
    ```
    """
    limits = checking.limits(spool, checks, queue_ages)
    pause = parse(check_every)
    if alert_after < 1:
        raise Failure(f"--alert-after-cycles must be at least 1, not {alert_after}", Exit.USAGE)

    async def work(_ending: Ending) -> int:
        async with checking.monitoring(spool, limits, json_metadata=checks.json_metadata) as watched:
            if once:
                problems = (await watched.run_once()).unwrap()
                for problem in problems:
                    _tell("start", problem, as_json=as_json)
                return Exit.PROBLEMS if problems else Exit.SUCCESS
            async with watched.watch(pause, alert_after) as events:
                async for event in events:
                    _tell("start" if isinstance(event, Start) else "end", event.problem, as_json=as_json)
        return Exit.SUCCESS

    code = run(work)
    return Exit.SUCCESS if code == BY_SIGNAL + signal.SIGTERM and not once else code


def _tell(event: str, problem: Problem, *, as_json: bool) -> None:
    now = datetime.datetime.fromtimestamp(wall_clock(), datetime.UTC)
    if as_json:
        output.document({"event": event, "at": now} | checking.document(problem))
    else:
        output.line(f"{human_time(now)}  {event:<5}  {checking.in_words(problem)}")
