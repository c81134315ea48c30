"""`multispool top`: a spool, live, on the whole screen.

Why rich and not textual. rich is here already, and only lines of text are drawn; a picture is a pure function
that tests call (`render`). textual is maintained and would bring widgets, but runs on asyncio: the signals, the
threads and the ends of this package's commands are on Trio, and would be needed a second time. It also costs five more
packages and a fifth of a second at import. What remained to be written for rich is the reading of keys (`screen`).

How it works. Four tasks: one looks at the spool in a thread and waits (`looks`), one lets the monitor look, more
rarely (`checks`), one reads keys and changes the view (`view`), one draws what has changed (`render`). All
they share is one `Scene`.
"""

import contextlib
import math
import os
import signal
from typing import Annotated, final

import trio
from cyclopts import Parameter
from msgspec.structs import replace

from trio_multispool.cli import durations
from trio_multispool.cli.arguments import Location
from trio_multispool.cli.exits import Exit, Failure, said
from trio_multispool.cli.running import BY_SIGNAL, Ending, beside, run, when_cancelled
from trio_multispool.cli.spools import looking
from trio_multispool.cli.top import actions, checks, screen
from trio_multispool.cli.top.render import Scene, page, picture
from trio_multispool.cli.top.view import Action, Ask, Request, Row, View, press, settle
from trio_multispool.clock import wall_clock
from trio_multispool.errors import NotASpool, SpoolError
from trio_multispool.looks.opening import Looks, looks_at
from trio_multispool.looks.problems import Problem
from trio_multispool.looks.seen import Listing
from trio_multispool.looks.state import Model, advance, checked, pause_after
from trio_multispool.model.results import Err
from trio_multispool.session.stores import is_directory
from trio_multispool.threads.offload import Offload

_FASTEST = 0.1
_TICK = 1.0
"""Seconds after which the picture is drawn again in any case: ages grow."""

_PATIENCE = 0.5
"""Seconds after which a look that is under way is shown."""

_REPLACED = "another spool has taken the place of the one that was shown, so figures jump"

_OF_THE_TERMINAL = (signal.SIGWINCH, signal.SIGTSTP)


def top(
    spool: Location,
    /,
    *,
    every: Annotated[str, Parameter(help="How often to look, at most: `0.5`, `5`, `1m`.")] = "1s",
    check_every: Annotated[
        str,
        Parameter(help="How often the monitor looks, at most; `0`: never. It locks what it suspects, for a moment."),
    ] = "15s",
) -> int:
    """Watch a spool, live, on the whole screen.

    Queues with what is available in them, what comes in and goes out, and the age of the oldest entry; what is checked
    out, by which process and for how long; what is in quarantine; problems as they start and end. Keys sort, move and
    look into queues and entries; entries in quarantine can be retried or dropped. `h` tells the keys.

    It only looks: nothing is recovered or written (but what you tell it to retry or drop). A spool that takes
    long to look at is looked at less often, so that looking takes one tenth of the time at most.

    ```console
    $ multispool top var/mail
    $ multispool top /srv/photos --every 5
    ```
    """
    interval = durations.parse(every)
    if not _FASTEST <= interval < math.inf:
        raise Failure(f"--every must be at least {_FASTEST} seconds, not {every}", Exit.USAGE)
    check_interval = durations.parse(check_every)
    with looking(spool) as storage:
        path = storage.location  # absolute, and without a password
    location = path if is_directory(path) else spool

    async def watching(_ending: Ending) -> int:
        with screen.taken_over() as terminal, contextlib.closing(looks_at(location)) as looks:
            scene = Scene(path, Model(), View(), wall_clock(), interval, plain=terminal.plain)
            shown = _Top(location, looks, scene, check_interval, terminal)
            await shown.run()
        return BY_SIGNAL + signal.SIGHUP if shown.gone else Exit.SUCCESS

    return run(watching)


def _trouble(error: SpoolError) -> str:
    """Say why a spool that was seen cannot be looked at (any more)."""
    return f"the spool is gone: {error.reason.partition(';')[0]}" if isinstance(error, NotASpool) else said(error)


@final
class _Top:
    """The tasks, and what they share."""

    def __init__(self, location: str, looks: Looks, scene: Scene, check_every: float, terminal: screen.Screen) -> None:
        self._location = location
        self._check_every = check_every
        self._screen = terminal
        self._looks = looks
        self._offload = Offload(None)
        self._scene = scene
        self._changed = trio.Event()
        self._looked = trio.Event()
        """Set once something has been seen."""
        self._wanted = trio.Event()
        """Set when the next look should not wait."""
        self.gone = False
        """Whether the terminal has gone."""

    async def run(self) -> None:
        """Watch until a key or a signal ends it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(when_cancelled, self._looks.stop)
            nursery.start_soon(self._follow_the_terminal)
            nursery.start_soon(self._look_again_and_again)
            nursery.start_soon(self._draw_again_and_again)
            nursery.start_soon(self._check_again_and_again)
            await self._obey()
            nursery.cancel_scope.cancel()

    def _change(self, **changed: object) -> None:
        self._scene = replace(self._scene, **changed)
        self._changed.set()

    def _change_view(self, **changed: object) -> None:
        self._change(view=replace(self._scene.view, **changed))

    # Tasks

    async def _follow_the_terminal(self) -> None:
        """Draw anew when the window's size changes, and give the terminal back while the process is suspended."""
        wanted = [number for number in _OF_THE_TERMINAL if signal.getsignal(number) is not signal.SIG_IGN]
        with trio.open_signal_receiver(*wanted) as received:
            async for number in received:
                if number == signal.SIGTSTP:
                    self._screen.leave()
                    os.kill(os.getpid(), signal.SIGSTOP)
                    self._screen.enter()
                self._changed.set()

    async def _draw_again_and_again(self) -> None:
        while True:
            self._changed = trio.Event()
            size = self._screen.size()
            scene = replace(self._scene, now=wall_clock())
            try:
                self._screen.draw(picture(scene, *size), size)
            except OSError:  # the terminal has gone; the task that reads keys notices too
                await trio.sleep_forever()
            with trio.move_on_after(_TICK):
                await self._changed.wait()

    async def _check_again_and_again(self) -> None:
        if not self._check_every:
            return
        await self._looked.wait()
        await checks.check_again_and_again(self._location, self._check_every, self._entries, self._tell)

    def _entries(self) -> int:
        return sum(line.seen.total for line in self._scene.model.lines.values())

    def _tell(self, found: dict[str, Problem]) -> None:
        if not self._scene.view.paused:
            self._change(model=checked(self._scene.model, found, wall_clock()))

    async def _look_again_and_again(self) -> None:
        while True:
            self._wanted = trio.Event()
            async with beside(self._show_reading):
                await self._look()
            self._change(reading=None)
            with trio.move_on_after(math.inf if self._scene.view.paused else self._scene.pause):
                await self._wanted.wait()
            while self._scene.view.paused and not self._wanted.is_set():
                await self._wanted.wait()

    async def _show_reading(self) -> None:
        while True:
            await trio.sleep(_PATIENCE)
            self._change(reading=self._looks.seen)

    async def _look(self) -> None:
        """Look once, and again at what is open."""
        answer = await self._offload.run("look", lambda _before_commit: self._looks.look())
        if isinstance(answer, Err):
            self._change(trouble=_trouble(answer.error), pause=self._scene.every)
            return
        before, look = self._scene.model.look, answer.value
        if before is not None and before.identity != look.identity:
            self._change_view(message=_REPLACED)
        self._change(
            model=advance(self._scene.model, look), pause=pause_after(look.took, self._scene.every), trouble=""
        )
        self._looked.set()
        view = self._scene.view
        if view.listing is not None:
            await self._list(view.listing.queue)
        if view.details is not None:
            await self._detail(view.details.queue, view.details.name)
        self._change(view=settle(self._scene.model, self._scene.view))

    async def _obey(self) -> None:
        """Do what the keys say, until one ends the command or the terminal has gone."""
        while (keys := await self._screen.keys()) is not None:
            for key in keys:
                if key == "redraw":
                    self._screen.forget()
                view, request = press(self._scene.model, self._scene.view, key, page(self._screen.size()[1]))
                self._change(view=view)
                if request is Ask.QUIT:
                    return
                if request is not None:
                    await self._fulfil(request)
        self.gone = True

    # Requests

    async def _fulfil(self, request: Request) -> None:
        match request:
            case Row(queue, ""):
                await self._list(queue, opening=True)
            case Row(queue, name):
                await self._detail(queue, name, opening=True)
            case Action(verb, _queue, name):
                self._change_view(message=f"{name}: {verb} …")
                outcome = await actions.act(self._location, request)
                self._change_view(message=outcome, details=None)
                self._wanted.set()
            case _:
                self._wanted.set()

    async def _list(self, queue: str, *, opening: bool = False) -> None:
        """Fetch the listing of a queue, and show it if it is wanted (still)."""

        def fetch(_before_commit: object) -> Listing | str:
            try:
                return self._looks.listing(queue)
            except FileNotFoundError:
                return f"queue {queue} has gone"
            except OSError as error:
                return f"queue {queue} cannot be read: {error.strerror}"

        answer = await self._offload.run("listing", fetch)
        view = self._scene.view
        if not opening and (view.listing is None or view.listing.queue != queue):
            return
        if isinstance(answer, Err):
            self._change_view(message=said(answer.error))
        elif isinstance(found := answer.value, str):
            self._change_view(listing=None, message=found)
        else:
            self._change_view(listing=found, **({"selected": None, "position": 0} if opening else {}))
        self._change(view=settle(self._scene.model, self._scene.view))

    async def _detail(self, queue: str, name: str, *, opening: bool = False) -> None:
        """Fetch what is known about an entry, and show it if it is wanted (still)."""
        answer = await self._offload.run("look at an entry", lambda _before_commit: self._looks.details(queue, name))
        view = self._scene.view
        if not opening and (view.details is None or view.details.name != name):
            return
        if isinstance(answer, Err):
            self._change_view(message=said(answer.error))
        elif answer.value is None:
            self._change_view(details=None, scroll=0, message=f"entry {name} has gone")
        else:
            self._change_view(details=answer.value, scroll=0 if opening else view.scroll)
