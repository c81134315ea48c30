"""The PostgreSQL server that the tests share: where it comes from, that there is one a run, and that none is left."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from helpers import postgresql, postgresql_servers
from helpers.postgresql import own_server, server
from helpers.postgresql_servers import PACKAGE, VARIABLE, Binaries, Given, Server, find_source

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(postgresql.__file__).parents[1]
NOWHERE = Path("/nonexistent")

INI = f"""
[pytest]
pythonpath = {TESTS}
addopts = --import-mode=importlib -p no:cacheprovider -p xdist
"""
CONFTEST = """
from helpers import postgresql

def pytest_configure(config):
    postgresql.register(config)
"""


def programs(*paths: Path) -> None:
    """Make what looks like the programs of servers."""
    for path in paths:
        path.mkdir(parents=True)
        for name in ("postgres", "initdb"):
            (path / name).touch()


@contextlib.contextmanager
def run_of_tests(directory: Path, code: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run pytest in a process of its own, on tests that write down in files what they see."""
    for name, text in (("pytest.ini", INI), ("conftest.py", CONFTEST), ("test_it.py", code)):
        (directory / name).write_text(text)
    temporary = f"--basetemp={directory}/pytest"
    command = [sys.executable, "-m", "pytest", "-q", temporary, *options, str(directory)]
    known = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", VARIABLE))}
    known["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with subprocess.Popen(
        command, cwd=directory, env=known, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        try:
            yield run
        finally:
            run.kill()


def await_end(pid: int) -> None:
    """Wait until a process has ended that is nobody's child."""
    with contextlib.suppress(ProcessLookupError):
        watched = os.pidfd_open(pid)
        try:
            assert select.select([watched], [], [], 60)[0], f"process {pid} has not ended"
        finally:
            os.close(watched)


SAYING = """
import json, os
from helpers.postgresql import server

def say(path):
    it = server()
    it.execute("SELECT 1")
    with open(os.path.join(os.path.dirname(__file__), path), "w") as file:
        json.dump(it.tell("tell"), file)
"""
TWO = f"""
import pytest, threading
{SAYING}
@pytest.mark.parametrize("number", range(2))
def test_it(number):
    say(f"said-{{number}}-by-{{os.environ['PYTEST_XDIST_WORKER']}}")
"""
WAITING = f"""
import sys
{SAYING}
def test_it(capfd):
    say("said")
    with capfd.disabled():
        print("ready", flush=True)
    while True:
        sys.stdin.read()
"""


# Where it comes from


def test_a_url_goes_before_debians_programs_and_those_before_the_packages(tmp_path):
    """Take away one source after another, and the next is found."""
    programs(debian := tmp_path / "debian" / "15" / "bin", package := tmp_path / PACKAGE / "pginstall18" / "bin")
    known = (tmp_path / "debian", [str(tmp_path / PACKAGE)])
    url = "postgresql://somebody@somewhere/db"
    assert find_source({VARIABLE: url}, *known) == Given(url)
    found = find_source({VARIABLE: ""}, *known)
    assert isinstance(found, Binaries)
    assert found.directory == debian
    found = find_source({}, NOWHERE, known[1])
    assert isinstance(found, Binaries)
    assert found.directory == package
    assert find_source({}, NOWHERE, []) is None


def test_of_several_versions_the_newest_is_taken(tmp_path):
    """As numbers: 15 is newer than 9.6. A directory without programs is not one of them."""
    programs(*(tmp_path / "debian" / each / "bin" for each in ("15", "9.6", "13")))
    (tmp_path / "debian" / "16" / "bin").mkdir(parents=True)
    programs(*(tmp_path / PACKAGE / each / "bin" for each in ("pginstall", "pginstall18", "pginstall17")))
    found = find_source({}, tmp_path / "debian", [])
    assert isinstance(found, Binaries)
    assert found.directory == tmp_path / "debian" / "15" / "bin"
    found = find_source({}, NOWHERE, [str(tmp_path / PACKAGE)])
    assert isinstance(found, Binaries)
    assert found.directory == tmp_path / PACKAGE / "pginstall18" / "bin"


@pytest.mark.postgresql
def test_the_package_has_programs_that_run_a_server(tmp_path, monkeypatch):
    """Also where its user cannot reach the package: then they are copied to the server's folder."""
    pytest.importorskip(PACKAGE)
    shared = server()
    monkeypatch.setattr(postgresql, "server", lambda: shared)
    source = find_source({}, NOWHERE)
    monkeypatch.setattr(postgresql, "find_source", lambda _: source)
    monkeypatch.setattr(
        postgresql_servers, "_is_open", lambda path: Path(PACKAGE) not in (*path.parents, Path(path.name))
    )
    with own_server(tmp_path) as started:
        [[version]] = started.execute("SHOW server_version")
        assert started.origin.startswith(f"postgres (PostgreSQL) {version}")


# What it is like


def test_the_url_of_a_spool_keeps_what_the_servers_url_has():
    """Its user, its hosts and its parameters; the spool's name and other parameters come after them."""
    given = Server("postgresql://u:p@a,b:5433/db?target_session_attrs=any", "given")
    assert given.url("mail", pool="x y") == (
        "postgresql://u:p@a,b:5433/db?target_session_attrs=any&spool=mail&pool=x+y"
    )


@pytest.mark.postgresql
@pytest.mark.sample
def test_what_a_test_makes_it_can_drop():
    """A statement is committed when it returns; dropping what is not there is no error."""
    it, name = server(), f"test_{os.urandom(6).hex()}"
    it.execute(f"CREATE SCHEMA {name}")
    it.execute(f"CREATE TABLE {name}.t (n int)")
    it.execute(f"INSERT INTO {name}.t VALUES (%s)", 5)
    assert it.execute(f"SELECT n FROM {name}.t") == [(5,)]
    it.drop(name, f"{name}_2")
    assert it.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", name) == []


@pytest.mark.postgresql
def test_a_server_of_ones_own_can_be_stopped_and_started_and_ends_with_its_block(tmp_path):
    """It is not the one that the others use, and comes back where it was, with what it had."""
    with own_server(tmp_path, work_mem="1MB") as own:
        assert own.base != server().base
        assert own.execute("SHOW work_mem") == [("1MB",)]
        own.execute("CREATE TABLE kept (n int)")
        for how in ("fast", "immediate"):
            own.tell(f"stop {how}")
            with pytest.raises(psycopg.OperationalError):
                own.execute("SELECT 1")
            own.tell("start")
            assert own.execute("SELECT count(*) FROM kept") == [(0,)]
        state = own.tell("tell")
        assert os.path.isdir(state["folder"])
    await_end(state["keeper"])
    with pytest.raises(ProcessLookupError):
        os.kill(state["pid"], 0)
    assert not os.path.exists(state["folder"])


# One a run, and none after it


@pytest.mark.program
@pytest.mark.postgresql
def test_all_workers_of_a_run_share_one_server_which_ends_with_the_run(tmp_path):
    """Whichever of them asks first starts it."""
    with run_of_tests(tmp_path, TWO, "--numprocesses=2", "--dist=each") as run:
        out, _ = run.communicate(timeout=120)
    assert run.returncode == 0, out
    told = [json.loads(path.read_text()) for path in tmp_path.glob("said-*")]
    assert len(told) == 4, "two tests, on two workers"
    assert all(each == told[0] for each in told), told
    assert not Path(told[0]["folder"]).exists(), "it is gone when pytest has ended, not later"
    await_end(told[0]["keeper"])


@pytest.mark.program
@pytest.mark.postgresql
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("options", [["-n0"], ["-n1"]], ids=["alone", "worker"])
def test_a_run_that_is_killed_leaves_no_server_and_no_files(tmp_path, number, options):
    """Its keeper sees it end."""
    said = begin(tmp_path, options, number)
    await_end(said["keeper"])
    assert not Path(said["folder"]).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(said["pid"], 0)


def begin(directory: Path, options: list[str], number: signal.Signals) -> dict[str, Any]:
    """Begin a run that waits in a test, and kill it; return how its server was."""
    os.mkfifo(directory / "ready")
    code = WAITING.replace('print("ready", flush=True)', f"open({str(directory / 'ready')!r}, 'w').close()")
    with run_of_tests(directory, code, *options) as run:
        (directory / "ready").read_text()
        said: dict[str, Any] = json.loads((directory / "said").read_text())
        run.send_signal(number)
        run.communicate(timeout=120)
    return said


@pytest.mark.postgresql
def test_a_server_ends_with_its_keeper(tmp_path):
    """Nobody is there who could end it later."""
    with own_server(tmp_path) as own:
        state = own.tell("tell")
        os.kill(state["keeper"], signal.SIGKILL)
        await_end(state["pid"])
    assert not os.path.exists(state["folder"])


@pytest.mark.program
def test_a_run_without_a_server_skips_and_says_so_in_its_last_lines(tmp_path):
    """Nobody reads the reasons of a hundred tests that were skipped."""
    code = "from helpers import postgresql\npostgresql.find_source = lambda _: None\n" + TWO
    with run_of_tests(tmp_path, code, "-n2") as run:
        out, _ = run.communicate(timeout=120)
    assert run.returncode == 0, out
    assert "2 skipped" in out
    assert f"2 tests did not run. Each {postgresql.NO_SERVER}." in out.splitlines()[-3:]


@pytest.mark.program
def test_a_server_that_does_not_start_fails_each_test_with_the_reason(tmp_path):
    """It is tried once: hundreds of tests do not wait for it one after another."""
    programs(tmp_path / "debian" / "15" / "bin")
    for name in ("postgres", "initdb"):
        program = tmp_path / "debian" / "15" / "bin" / name
        program.write_text(f"#!/bin/sh\necho {name} is broken >&2\nexit 1\n")
        program.chmod(0o755)
    found = f"postgresql.Binaries(__import__('pathlib').Path({str(tmp_path / 'debian' / '15' / 'bin')!r}))"
    code = f"from helpers import postgresql\npostgresql.find_source = lambda _: {found}\n" + TWO
    with run_of_tests(tmp_path, code, "-n2") as run:
        out, _ = run.communicate(timeout=120)
    assert run.returncode == 1, out
    assert "2 failed" in out
    assert "initdb" in out
