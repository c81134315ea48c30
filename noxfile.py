"""Everything that is checked about this project, each in a virtual environment of its own: `nox --list` tells."""

import contextlib
import itertools
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"
nox.options.sessions = ["tests", "lint", "types", "architecture"]

# nox tells each time that it has looked for uv, which it can do without.
logging.getLogger("nox").addFilter(lambda record: not str(record.msg).startswith("uv binary not found"))

PROJECT = nox.project.load_toml("pyproject.toml")
# Where the tests keep the packages that they share.
TEST_PACKAGES = os.pathsep.join(["tests", "tests/crashes"])

# What an installed package brings along.
MODULES = ["trio_multispool", "_trio_multispool_command.py"]

PYTHONS = nox.project.python_versions(PROJECT)


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of one of the dependency groups in pyproject.toml."""
    return tuple(nox.project.dependency_groups(PROJECT, name))


@contextlib.contextmanager
def scratch() -> Iterator[list[str]]:
    """Yield the options that let the tests work in memory, where there is a tmpfs that may be written to.

    Tests that need a disk, or a file system of some kind, find or make it themselves.
    """
    memory = Path("/dev/shm")  # noqa: S108  # a directory of our own is made in it
    mounted = Path("/proc/mounts").read_text().splitlines() if Path("/proc/mounts").exists() else []
    is_tmpfs = any(line.split()[1:3] == [str(memory), "tmpfs"] for line in mounted)
    if not is_tmpfs or not os.access(memory, os.W_OK | os.X_OK):
        yield []
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="trio-multispool-tests-", ignore_cleanup_errors=True) as made:
        yield [f"--basetemp={made}/pytest"]


def run_tests(session: nox.Session, *options: str, groups: tuple[str, ...] = ("test",)) -> None:
    """Install the project with its extras, and run the tests; arguments after `--` go to pytest."""
    # Editable, so that `nox -R` (which installs nothing) never tests an older state than the one in src/.
    session.install("--editable", ".[cli,postgresql,web]", *itertools.chain(*map(group, groups)))
    # The tests start the command in hundreds of processes. Where Python is told to write no compiled files, each of
    # them would compile all of it again.
    session.run("python", "-m", "compileall", "-q", "src", "tests/helpers")
    # In one process more than there are processors, for the tests that wait for others; in four at most, because the
    # tests share the machine's inotify instances. `-n 0` brings back one process.
    spread = [f"--numprocesses={min(4, len(os.sched_getaffinity(0)) + 1)}", "--dist=worksteal"]
    with scratch() as places:
        session.run("pytest", *spread, *places, *options, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests with the Python that runs nox; of what enumerates or starts programs, a representative part."""
    session.log("The tests take three to five minutes on two processors, and less on more.")
    run_tests(session, "-m", "sample or not (page or program or postgresql or browser)")


@nox.session(default=False)
def proofs(session: nox.Session) -> None:
    """Run the tests that enumerate (calls, errnos, states of a disk, orders, moments), and leave nothing out."""
    session.log("The proofs take five to twelve minutes on two processors, and less on more.")
    session.env["TRIO_MULTISPOOL_PROOFS"] = "whole"
    run_tests(session, "-m", "proof and not postgresql")


@nox.session(default=False)
def programs(session: nox.Session) -> None:
    """Run the tests that start interpreters: examples, servers, benchmarks, and commands as a person starts them."""
    run_tests(session, "-m", "program and not (sample or postgresql or browser)")


@nox.session(default=False)
def pages(session: nox.Session) -> None:
    """Type into a shell what the longer pages of the documentation show, beside the libraries that they speak of."""
    run_tests(session, "-m", "page and not (sample or postgresql)")


@nox.session(default=False)
def postgresql(session: nox.Session) -> None:
    """Run all tests that need a PostgreSQL server. They start one, or use the one they are told.

    `MULTISPOOL_TEST_POSTGRESQL` is the URL of a server; without it, one of Debian's programs is started, or, where
    those are not installed, one from the Python package that is installed with the tests. What enumerates runs in part,
    and as a whole with TRIO_MULTISPOOL_PROOFS=whole in the environment.
    """
    run_tests(session, "-m", "postgresql and not browser")


@nox.session(default=False)
def web(session: nox.Session) -> None:
    """Look at the dashboard in a real browser, Debian's Chromium, and make the pictures of the documentation.

    `MULTISPOOL_TEST_CHROMIUM` is the path of another one. Where there is none, these tests say so, and are left out.
    The pictures are written to docs/pictures if `MULTISPOOL_TEST_PICTURES` is set.
    """
    run_tests(session, "-m", "browser", groups=("test", "browser"))


def find_python(version: str) -> str | None:
    """Return the path of an interpreter of that version that starts, or nothing."""
    # pyenv puts a `python3.x` on the path for every version it has, most of which only say that they are not active.
    installed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [shutil.which(f"python{version}"), *map(str, installed.glob(f"{version}.*/bin/python{version}"))]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def add_tests_for(version: str) -> None:
    """Add a session that runs the tests with one Python version, and skips itself where there is none."""
    # Found here and not by nox, for which a missing interpreter is a failure wherever the variable CI is set.
    python = find_python(version)

    @nox.session(name=f"tests-{version}", python=python, tags=["pythons"], default=False)
    def tests_for(session: nox.Session) -> None:
        if python is None:
            session.skip(f"there is no Python {version} on this machine")
        run_tests(session, "-m", "sample or not (page or postgresql or browser)")

    tests_for.__doc__ = f"Run the tests, and those that start programs, with Python {version}, if it is installed."


for python_version in PYTHONS:
    add_tests_for(python_version)


@nox.session(default=False)
def filesystems(session: nox.Session) -> None:
    """Lose power on real ext4, XFS and btrfs, and fill and break their disks. Needs root; says what else it needs."""
    session.install("--editable", ".[cli]", *group("test"), *group("filesystems"))
    session.run("python", "-m", "filesystems", *session.posargs, env={"PYTHONPATH": TEST_PACKAGES})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and basedpyright, and that everything public has one."""
    session.install(".[cli,cron,otel,postgresql,prometheus,pydantic,web]", *group("types"))
    session.run("mypy")
    session.run("basedpyright")
    session.run("basedpyright", "--verifytypes", "trio_multispool", "--ignoreexternal")


@nox.session
def architecture(session: nox.Session) -> None:
    """Check that imports point one way."""
    # The sources are read, not imported: no dependency is needed.
    session.install("--no-deps", ".")
    session.install(*group("architecture"))
    session.run("lint-imports")


@nox.session(default=False)
def demo(session: nox.Session) -> None:
    """Run the demonstration: in a directory, or `-- --postgresql`, on a server that is started for it."""
    session.install(".[cli,postgresql]")
    command, arguments = ["python", "examples/demo.py"], list(session.posargs)
    if "--postgresql" in arguments:
        arguments.remove("--postgresql")
        command = ["python", "-m", "helpers.with_postgresql", *command, "--spool", "{URL}?spool=demo"]
    session.run(*command, *arguments, env={"PYTHONPATH": TEST_PACKAGES})


@nox.session(default=False)
def storm(session: nox.Session) -> None:
    """Kill workers of a spool at random: `-- --minutes 10`, `--seed`, `--workers`, `--directory`, `--url`."""
    session.install("--editable", ".[cli,postgresql]", *group("test"))
    session.run("python", "-m", "storm", *session.posargs, env={"PYTHONPATH": TEST_PACKAGES})


@nox.session(default=False)
def model(session: nox.Session) -> None:
    """Check the model of who owns an entry, and its mutants, with spin; `-- --quick` for smaller sizes."""
    session.run("python", "tests/crashes/spin/check.py", *session.posargs, env={"PYTHONPATH": TEST_PACKAGES})


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure this library beside its peers: `-- CASE…` (`postgresql`, say), `--rounds`; `-- --help` tells more."""
    session.install(".[postgresql]", *group("bench"))
    session.chdir("benchmarks")
    session.run("python", "-m", "bench", "--plots", "../docs/pictures", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install(".[cli,cron,otel,postgresql,prometheus,pydantic,web]", *group("docs"))
    output = Path("docs", "_build", "html")
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-b", "html", "docs", str(output), *session.posargs)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Make the wheel and the sdist in dist/, check them, and run the quickstart with each, with and without extras."""
    session.install(*group("build"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    made = sorted(Path("dist").absolute().iterdir())
    session.run("twine", "check", "--strict", *map(str, made))
    session.run(
        "check-wheel-contents", "--toplevel", ",".join(MODULES), *(str(each) for each in made if each.suffix == ".whl")
    )
    for package in made:
        for extra in ("", "[cli]", "[pydantic]"):
            try_out(session, f"{package}{extra}")


def try_out(session: nox.Session, package: str) -> None:
    """Install a package into an environment of its own, and do there what the README says."""
    quickstart, version = Path("examples", "quickstart.py").absolute(), PROJECT["project"]["version"]
    with tempfile.TemporaryDirectory() as scratch, session.chdir(scratch):
        session.run("python", "-m", "venv", "venv")
        installed = Path(scratch, "venv", "bin")
        session.run(str(installed / "python"), "-m", "pip", "install", "--quiet", package, external=True)
        session.run(str(installed / "python"), str(quickstart), external=True)
        asked = f"import trio_multispool as it; assert it.__version__ == {version!r}, it.__version__"
        session.run(str(installed / "python"), "-c", asked, external=True)
        has_command = package.endswith("[cli]")
        session.run(str(installed / "multispool"), "ls", "mail", external=True, success_codes=[0 if has_command else 2])
        if package.endswith("[pydantic]"):
            made = (
                "from trio_multispool.integrations.pydantic import PydanticCodec as C; assert C(int).encode(1) == b'1'"
            )
            session.run(str(installed / "python"), "-c", made, external=True)


@nox.session(default=False)
def dev(session: nox.Session) -> None:
    """Make or refresh .venv, with the project (editable) and all its tools, for an editor and for quick runs."""
    groups = [requirement for name in PROJECT["dependency-groups"] for requirement in group(name)]
    session.run("python", "-m", "venv", ".venv")
    python = Path(".venv", "bin", "python").absolute()
    session.run(str(python), "-m", "pip", "install", "--editable", ".[cli]", "nox", *groups, external=True)
