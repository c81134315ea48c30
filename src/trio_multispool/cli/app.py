"""The command line as a whole: its commands, and how each ends."""

import logging
import re
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final, NoReturn

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter

import trio_multispool
from trio_multispool.cli import output
from trio_multispool.cli.commands.adopt import adopt
from trio_multispool.cli.commands.cancel import cancel
from trio_multispool.cli.commands.cat import cat
from trio_multispool.cli.commands.completion import completion_command
from trio_multispool.cli.commands.create import create
from trio_multispool.cli.commands.enqueue_at import enqueue_at
from trio_multispool.cli.commands.expire import expire
from trio_multispool.cli.commands.export import export
from trio_multispool.cli.commands.fsck import fsck
from trio_multispool.cli.commands.import_ import import_
from trio_multispool.cli.commands.ls import ls
from trio_multispool.cli.commands.monitor import monitor
from trio_multispool.cli.commands.mv import mv
from trio_multispool.cli.commands.pause import pause, resume
from trio_multispool.cli.commands.put import put
from trio_multispool.cli.commands.quarantine import quarantine_app
from trio_multispool.cli.commands.recover import recover
from trio_multispool.cli.commands.retry import retry
from trio_multispool.cli.commands.rm import rm
from trio_multispool.cli.commands.show import show
from trio_multispool.cli.commands.sql import sql
from trio_multispool.cli.commands.stats import stats
from trio_multispool.cli.commands.web import web
from trio_multispool.cli.commands.work import work
from trio_multispool.cli.exits import Exit, Failure, code_of, said
from trio_multispool.cli.meant import meant
from trio_multispool.cli.running import BY_SIGNAL
from trio_multispool.cli.top.app import top
from trio_multispool.errors import NotASpool, SpoolError
from trio_multispool.session.stores import without_secrets

_HELP: Final = """Look at, fill and work off spools: durable queues in a directory, or on a PostgreSQL server.

An entry has a name, metadata (small, mostly JSON) and data (a file). Both are shown as they are, whatever program made
them.

Exit codes: **0** success, **1** it failed, **2** wrong usage, **3** no such entry or queue, **4** the entry is busy or
its name taken, **5** not a spool, or refused, **6** `work --once`: some commands failed, **7** `fsck` and
`monitor --once`: something is wrong, **8** it was done, and standard output could not be written, **130** after Ctrl-C,
**143** after SIGTERM.

`multispool COMMAND --help` tells more, with examples.

```console
$ multispool create var/mail send failed
$ multispool put var/mail send letter.txt
$ multispool ls var/mail
$ multispool work var/mail send --failed failed -- ./deliver.sh
```
"""

_URL: Final = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s'\"]+", re.IGNORECASE)

_FILLING: Final = (create, put, enqueue_at)
_LOOKING: Final = (ls, stats, show, cat, top, web)
_TAKING: Final = (work, mv, rm, cancel, retry, expire, pause, resume)
_KEEPING: Final = (export, import_, recover, fsck, monitor, adopt, sql)
"""The commands, in the order of the help."""

_USAGE: Final[dict[Callable[..., int | None], str]] = {
    ls: "ls [OPTIONS] SPOOL [QUEUE]",
    stats: "stats [OPTIONS] SPOOL [QUEUE]",
    web: "web [OPTIONS] SPOOL...",
    work: "work [OPTIONS] SPOOL QUEUE -- COMMAND...",
    mv: "mv [OPTIONS] SPOOL [NAME...] QUEUE",
    rm: "rm [OPTIONS] SPOOL [NAME...]",
    cancel: "cancel [OPTIONS] SPOOL [NAME...]",
    retry: "retry [OPTIONS] SPOOL FROM TO [NAME...]",
    pause: "pause [OPTIONS] SPOOL QUEUE",
    resume: "resume [OPTIONS] SPOOL QUEUE",
    expire: "expire [OPTIONS] SPOOL QUEUE [-- COMMAND...]",
    export: "export [OPTIONS] SPOOL [QUEUE]",
    import_: "import [OPTIONS] SPOOL [QUEUE]",
}
"""Of commands whose arguments are more than Python can tell: made from the function, it would say `[ARGS]`."""


def _shown(default: object) -> str | None:
    """Say an option's default for its help. That of a flag goes without saying."""
    return None if default is None or default is False else str(default)


def make_app() -> App:
    """Return the command line."""
    app = App(
        name="multispool",
        help=_HELP,
        version=lambda: trio_multispool.__version__,
        help_format="markdown",
        result_action="return_value",
        default_parameter=Parameter(negative="", show_default=_shown),
    )
    completion = completion_command(lambda shell: app.generate_completion(shell=shell))
    commands: tuple[Callable[..., int | None], ...] = (*_FILLING, *_LOOKING, *_TAKING, *_KEEPING, completion)
    for position, command in enumerate(commands):
        usage = f"Usage: multispool {_USAGE[command]}" if command in _USAGE else None
        _ = app.command(command, name=command.__name__.rstrip("_").replace("_", "-"), sort_key=position, usage=usage)
    _ = app.command(quarantine_app(sort_key=commands.index(retry)))
    install = app.register_install_completion_command  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # its keyword arguments are untyped
    install(help="Install the completion for your shell, and exit.")
    return app


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; every trouble is one line on standard error."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        output.prepare()
        logging.basicConfig(format="multispool: %(message)s", level=logging.WARNING)
        return _run(arguments)
    except KeyboardInterrupt:
        return BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:  # `multispool ls | head`: the reader has closed the pipe
        return BY_SIGNAL + signal.SIGPIPE
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # what rich makes of it, which prints the help
            return BY_SIGNAL + signal.SIGPIPE
        raise
    except OSError as error:  # of help and version: commands tell it themselves
        if error.filename is not None:
            raise
        output.drop_stdout()
        output.complain(f"cannot write standard output: {error.strerror}")
        return Exit.FAILED
    finally:
        _ = signal.signal(signal.SIGTERM, previous)
        output.give_up_stderr()


def _run(arguments: Sequence[str]) -> int:
    app = make_app()
    try:
        code = app(arguments, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        command = " ".join(("multispool", *(error.command_chain or ())))
        hint = meant(arguments) if isinstance(error, MissingArgumentError) else None
        output.complain(hint or f"{_without_secrets(' '.join(str(error).split()), arguments)} See {command} --help")
        return Exit.USAGE
    except (Failure, SpoolError) as error:
        hint = None
        if isinstance(error, NotASpool):
            hint = meant(arguments, error.path)
        elif code_of(error) == Exit.USAGE:  # `rm` and `mv` find out themselves that a name is missing
            hint = meant(arguments)
        output.complain(hint or said(error))
        return code_of(error)
    return code if isinstance(code, int) else Exit.SUCCESS


def _without_secrets(told: str, arguments: Sequence[str]) -> str:
    """Return a message with no more of a URL than how it begins, whether it quotes an argument, or a part of one."""
    for word in filter(None, arguments):
        told = told.replace(word, without_secrets(word))
    return _URL.sub(r"\1…", told)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    """End in order, so that a terminal is left as it was found."""
    raise SystemExit(BY_SIGNAL + signal.SIGTERM)
