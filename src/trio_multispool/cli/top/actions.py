"""What `top` changes in a spool, once a person has said yes: it runs the command that does it.

`multispool quarantine retry` and `quarantine drop` do the work, and their output is shown. They run in their own
processes, so that they cannot disturb the picture, and `top` itself never writes.
"""

import subprocess
import sys

import trio

from trio_multispool.cli.top.view import Action


def command(spool: str, action: Action) -> list[str]:
    """Return the command that does what was asked for."""
    return [sys.executable, "-m", "trio_multispool", "quarantine", action.verb, spool, "--", action.name]


async def act(spool: str, action: Action) -> str:
    """Do it, and return what there is to say about it."""
    done = await trio.run_process(
        command(spool, action),
        stdin=subprocess.DEVNULL,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        start_new_session=True,  # Ctrl-C is for `top`, which ends the command (SIGTERM) and waits for it
    )
    told = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    if done.returncode:
        return told[-1].removeprefix("multispool: ") if told else f"{action.verb} failed ({done.returncode})"
    return told[-1] if told else f"{action.name}: {_DONE.get(action.verb, action.verb)}"


_DONE = {"retry": "back in its queue", "drop": "dropped"}
