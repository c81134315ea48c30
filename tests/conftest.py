"""What all tests share: both backends, signals, a directory for several users, and peace between two async plugins."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from helpers import figures, postgresql, postgresql_keeper, preforked
from helpers.places import PLACES, place_of
from helpers.proofs import WHOLE
from helpers.spools import Wall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.spools import Location


def pytest_configure(config: pytest.Config) -> None:
    """Notice interpreters that start; and take signals as a program in a terminal does, so that tests may send them.

    In each worker too. What `nohup` started, or a script in the background, begins with some of them ignored, and so
    do its children.
    """
    sys.addaudithook(_note)
    postgresql.register(config)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


_started: list[str] = []
"""The interpreters that the test has started, but for the one that forks and the one that keeps a server."""
_SPARED = {preforked.__file__, postgresql_keeper.__file__}


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and sys.executable in arguments[1] and _SPARED.isdisjoint(arguments[1]):
        _started.append(" ".join(map(str, arguments[1])))


@pytest.fixture(autouse=True)
def _rule_of_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that starts an interpreter without a word about it: that takes half a second, which adds up."""
    _started.clear()
    yield
    marked = any(request.node.get_closest_marker(mark) for mark in ("page", "program", "sample"))
    assert marked or not _started, f"mark it `program`, or use `helpers.processes`: it starts {_started}"


@pytest.fixture(scope="module", autouse=True)
def _spared_collector() -> None:
    """Spare the collector the thousands of tests, and all that came before: many tests collect, to see what is left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Name the backend; whatever is marked `anyio`, or asks for this fixture, runs once on each."""
    return cast("str", request.param)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the tests that run on both backends to AnyIO's plugin.

    `trio_mode` marks *every* async test `trio`, in this same hook, and pytest-trio wraps what is so marked in
    `trio.run()`. A test marked `anyio` would then run on Trio each time, on its asyncio turn too, and nobody would
    notice. So the mark is taken off again, after pytest-trio (`trylast`) and before the test is set up. Async fixtures
    need nothing: each plugin takes those of its own tests.
    """
    for item in items:
        if item.get_closest_marker("anyio") is None and "anyio_backend" not in getattr(item, "fixturenames", ()):
            continue
        # `own_markers` is what pytest-trio's `add_marker` appended to; a mark of its module or class would stay.
        item.own_markers[:] = [mark for mark in item.own_markers if mark.name != "trio"]
        if item.get_closest_marker("trio") is not None:
            message = f"{item.nodeid}: a test is run by pytest-trio (`trio`) or by AnyIO (`anyio`), not by both"
            raise pytest.UsageError(message)


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Return what counts for a proof: `count(Proof.EVERY_ERRNO, calls=3, bad=0)`."""

    def count(proof: figures.Proof, **numbers: int) -> None:
        record_property("figures", [proof.value, numbers])

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the figures of all proofs that ran, in whichever process."""
    reports = [report for how in ("passed", "failed") for report in terminalreporter.stats.get(how, ())]
    properties = [each for report in reports for each in report.user_properties]
    counted = [(figures.Proof(value[0]), value[1]) for what, value in properties if what == "figures"]
    if counted:
        terminalreporter.section("figures of the proofs" if WHOLE else "figures of what ran of the proofs")
    for proof, numbers in figures.add_up(counted).items():
        line = figures.tell(proof, figures.in_words(numbers), numbers.get("bad", 0), whole=WHOLE)
        terminalreporter.write_line(line)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    """Say where a spool is to be: a directory that is not there yet, or the location of a spool in PostgreSQL.

    For tests of what a spool does, wherever it is; a test of what it does to files takes `tmp_path`.
    """
    with place_of(request.param, tmp_path) as place:
        yield place


@pytest.fixture
def wall() -> Wall:
    """Stop the wall clock."""
    return Wall()


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """Make a directory that other users can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)
