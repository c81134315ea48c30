"""The command as a whole: help, version, wrong spools, completion, and life without the extra."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tomllib

import pytest

from helpers.processes import run_python
from helpers.proofs import thinned
from helpers.rooms import PROJECT
from helpers.stores import claim, make_store, release

COMMANDS = [
    "create",
    "put",
    "enqueue-at",
    "ls",
    "stats",
    "show",
    "cat",
    "top",
    "web",
    "work",
    "mv",
    "rm",
    "cancel",
    "retry",
    "expire",
    "quarantine",
    "export",
    "import",
    "recover",
    "fsck",
    "monitor",
    "adopt",
    "sql",
    "completion",
]
OF_QUARANTINE = ["ls", "show", "retry", "drop"]
ON_A_SPOOL = {
    "put": ["send", "-"],
    "enqueue-at": ["send", "2096-01-01T00:00Z", "-"],
    "ls": [],
    "stats": [],
    "show": ["one"],
    "cat": ["one"],
    "top": [],
    "work": ["send", "--once", "--", "true"],
    "mv": ["one", "send"],
    "rm": ["one"],
    "cancel": ["one"],
    "retry": ["send", "failed", "--all"],
    "expire": ["send", "--max-count", "9"],
    "quarantine ls": [],
    "quarantine show": ["one"],
    "quarantine retry": ["--all"],
    "quarantine drop": ["--all"],
    "export": ["send"],
    "import": ["send"],
    "recover": [],
    "fsck": [],
    "monitor": ["--once"],
    "adopt": [],
}


@pytest.mark.parametrize("command", [*COMMANDS, *(f"quarantine {command}" for command in OF_QUARANTINE)])
def test_every_command_has_help_with_an_example(multispool, command):
    """A promise, the arguments and an example, without a traceback and without a terminal."""
    found = multispool.here(*command.split(), "--help")
    shown = found.stdout
    assert (found.returncode, found.stderr) == (0, "")
    assert f"$ multispool {command}" in shown or f"| multispool {command}" in shown or f"(multispool {command}" in shown
    assert shown.startswith(f"Usage: multispool {command}")
    assert shown.splitlines()[2].strip().endswith(".")


@pytest.mark.parametrize("command", [*COMMANDS, *(f"quarantine {command}" for command in OF_QUARANTINE)])
def test_no_usage_line_has_words_that_only_python_knows(multispool, command):
    """Arguments have their names: `[ARGS]` says nothing."""
    assert "ARGS" not in multispool.here(*command.split(), "--help").stdout


def test_help_names_all_commands_and_the_exit_codes(multispool):
    """Without arguments too, the overview is what one gets."""
    shown = multispool.done("--help")
    assert all(f"│ {command} " in shown for command in COMMANDS)
    assert "Exit codes: 0 success" in shown
    assert "$ multispool work var/mail send" in shown
    assert multispool.done() == shown


def test_version_is_a_line(multispool):
    """`--version` says which it is."""
    assert len(multispool.done("--version").split("\n")) == 2


@pytest.mark.parametrize("words", ["--help", "--version", "ls --help", "quarantine --help", ""])
def test_help_that_cannot_be_written_is_a_failure_in_one_line(multispool, words):
    """As all output is; the interpreter does not complain either."""
    with open("/dev/full", "w") as full:
        ended = multispool(*words.split(), capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 1
    assert ended.stderr == "multispool: cannot write standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lss"], 'Unknown command "lss". Did you mean "ls"?'),
        (["ls"], 'Command "ls" parameter SPOOL requires an argument.'),
        (["ls", "spool", "--bogus"], "Unknown option: --bogus."),
        (
            ["work", "spool", "send", "--jobs", "x", "--", "true"],
            'Invalid value for --jobs: unable to convert "x" into int.',
        ),
        (["work", "spool", "send"], 'Command "work" parameter COMMAND requires an argument.'),
        (["put", "spool", "send"], 'Command "put" parameter FILE requires an argument.'),
        (["completion", "tcsh"], "Invalid value"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(multispool, words, message):
    """A script can tell wrong usage from trouble, and a person where to read on."""
    refused = multispool.here(*words)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith(f"multispool: {message}")
    command = "multispool" if words == ["lss"] else f"multispool {words[0]}"
    assert refused.stderr.endswith(f" See {command} --help\n")
    assert refused.stderr.count("\n") == 1


@pytest.mark.proof
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        pytest.param(*case, marks=pytest.mark.program if case[1] == "missing" else ())
        for case in thinned(
            itertools.product(ON_A_SPOOL, ["missing", "file", "empty", "world-writable", "new\nline"]), 4
        )
    ],
)
def test_a_path_that_is_no_spool_is_refused_in_one_line(  # noqa: PLR0913, PLR0917  # fixtures
    multispool, spool, tmp_path, snapshot, command, kind
):
    """Exit code 5, no traceback, and nothing is made or changed; also as a person starts each command."""
    path = tmp_path / kind
    if kind == "file":
        path.write_text("dear")
    elif kind == "empty":
        path.mkdir()
    elif kind == "world-writable":
        shutil.copytree(spool, path)
        path.chmod(0o777)
    before = snapshot(tmp_path)
    run = multispool.anew if kind == "missing" else multispool.here  # so that each command is started once
    refused = run(*command.split(), path, *ON_A_SPOOL[command])
    assert refused.returncode == 5
    assert refused.stdout == ""
    assert refused.stderr.startswith("multispool: '")
    assert refused.stderr.count("\n") == 1
    assert "create_if_missing" not in refused.stderr
    assert "Spool.create" not in refused.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.program
@pytest.mark.sample
@pytest.mark.parametrize("words", [["create", "new", "todo"], ["completion", "fish"]], ids=lambda words: words[0])
def test_a_command_that_needs_no_spool_can_be_started(multispool, tmp_path, words):
    """A process that is started, as a person starts it, prints what a forked one prints."""
    started = multispool.anew(*words)
    if words[0] == "create":
        shutil.rmtree(tmp_path / "new")
    assert (started.returncode, started.stdout, started.stderr) == (0, multispool.done(*words), "")


def test_a_spool_that_may_not_be_read_is_told_in_one_line(shared_directory):
    """A permission that is missing is exit code 1, never "not found"."""
    spool = shared_directory / "spool"
    make_store(spool).close()
    spool.chmod(0)
    try:
        refused = run_python(
            """
            import os
            from trio_multispool.cli.app import run

            if os.geteuid() == 0:  # who may read everything
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            sys.exit(run(["ls", sys.argv[1]]))
            """,
            spool,
            check=False,
        )
    finally:
        spool.chmod(0o700)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("multispool: not permitted")


def test_a_spool_of_an_unknown_format_is_refused(multispool, spool):
    """A later version's spool is not touched."""
    (spool / ".spool.json").write_text('{"format": 99}')
    for command, words in ON_A_SPOOL.items():
        refused = multispool.here(*command.split(), spool, *words)
        assert refused.returncode == 5
        assert refused.stderr.endswith("(format 99); upgrade\n")


@pytest.mark.parametrize("content", ["", "{spoilt", '{"format": null}', "[1]"])
def test_a_format_that_cannot_be_read_is_told_with_its_cure(multispool, spool, content):
    """It says what to put there; and with that in it, the spool can be used."""
    (spool / ".spool.json").write_text(content)
    refused = multispool.here("ls", spool)
    assert refused.returncode == 5
    _, _, cure = refused.stderr.partition("; if the file is damaged, put ")
    cure, _, rest = cure.partition(" into it again")
    assert rest == "; if not, upgrade\n"
    (spool / ".spool.json").write_text(cure)
    assert multispool.here("ls", spool).returncode == 0


INTERRUPTED = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_more):
        if name == "trio_multispool.cli.commands.put":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
if sys.argv.pop(1) == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
from _trio_multispool_command import main
sys.exit(main())
"""
"""The command, with a Ctrl-C that comes while it starts."""


@pytest.mark.program
@pytest.mark.parametrize(("how", "code"), [("heeded", -signal.SIGINT), ("ignored", 0)])
def test_ctrl_c_while_the_command_starts_shows_no_traceback(spool, how, code):
    """It ends by the signal, without a word; under `nohup` and the like, it goes on."""
    command = [sys.executable, "-c", INTERRUPTED, how, "ls", spool]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (code, "")


STARTED = """
import importlib, sys
module, _, name = sys.argv.pop(1).partition(":")
sys.exit(getattr(importlib.import_module(module), name)())
"""
"""What installers make of a script in pyproject.toml."""

SLOW = """
import sys
print("importing", flush=True)
sys.stdin.read()
sys.exit("was imported")
"""
"""A module that takes as long to import as somebody waits."""


@pytest.mark.program
@pytest.mark.parametrize("how", ["heeded", "ignored"])
def test_ctrl_c_while_python_still_imports_the_package_shows_no_traceback(tmp_path, how):
    """The installed command ends by the signal, without a word; under `nohup` and the like, it goes on."""
    (tmp_path / "msgspec.py").write_text(SLOW)
    begin = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]["multispool"]
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    heard = {"heeded": signal.default_int_handler, "ignored": signal.SIG_IGN}[how]
    before = signal.signal(signal.SIGINT, heard)  # as the child inherits it
    try:
        command = subprocess.Popen(
            [sys.executable, "-c", STARTED, begin, "ls"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with command:
        assert command.stdout.readline() == "importing\n"
        command.send_signal(signal.SIGINT)
        ended = command.communicate()  # lets the import go on, if the command is still there
    expected = {"heeded": (-signal.SIGINT, ""), "ignored": (1, "was imported\n")}[how]
    assert (command.returncode, ended[1]) == expected


@pytest.mark.program
def test_without_the_extra_it_says_how_to_get_it(multispool):
    """Exit code 2 and the line to type, for each of the two modules that may be missing."""
    for module in ("cyclopts", "rich"):
        code = (
            f"import sys; sys.modules[{module!r}] = None; from trio_multispool.cli import main; sys.exit(main(['ls']))"
        )
        refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert refused.stdout == ""
        assert refused.stderr == (
            f"multispool: the module {module} is missing; the command needs the extra `cli`:\n"
            '  python -m pip install "trio-multispool[cli]"\n'
        )


def complete(tmp_path, script, *words):
    """Return what bash offers for the last of the words, with the completion script sourced."""
    program = tmp_path / "bin/multispool"
    if not program.exists():
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m trio_multispool "$@"\n')
        program.chmod(0o755)
    ask = """
        source "$1"; shift
        function=$(complete -p multispool | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        "$function" multispool "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    found = subprocess.run(
        ["bash", "-c", ask, "bash", script, "multispool", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    return found.stdout.split()


@pytest.mark.program
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on this machine")
def test_bash_completes_commands_options_queues_and_entries(multispool, spool, put, tmp_path, snapshot):
    """The script that `completion bash` prints works, and completing only looks."""
    put("order-1")
    put("order-2", queue="failed")
    script = tmp_path / "completion.bash"
    script.write_text(multispool.done("completion", "bash"))
    before = snapshot(spool)
    assert complete(tmp_path, script, "w") == ["web", "work"]
    assert complete(tmp_path, script, "ls", "spool", "") == ["failed", "retry", "send"]
    assert complete(tmp_path, script, "put", "spool", "re") == ["retry"]
    assert complete(tmp_path, script, "work", "spool", "send", "--ret") == ["--retry-delay"]
    assert complete(tmp_path, script, "work", "spool", "send", "--failed", "f") == ["failed"]
    assert complete(tmp_path, script, "show", "spool", "o") == ["order-2", "order-1"]
    assert complete(tmp_path, script, "mv", "spool", "order-1", "s") == ["send"]
    assert complete(tmp_path, script, "rm", "spool", "order-1", "order-2") == ["order-2"]
    assert complete(tmp_path, script, "ls", "nosuch", "") == []
    assert snapshot(spool) == before
    with contextlib.closing(make_store(spool)) as store:  # to cancel, also what somebody has
        claimed = claim(store, "send", "order-1")
        assert complete(tmp_path, script, "rm", "spool", "order-1") == []
        assert complete(tmp_path, script, "cancel", "spool", "order-1") == ["order-1"]
        release(store, claimed)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_for_each_shell(multispool, shell):
    """Each script is for the command by its name."""
    assert "multispool" in multispool.done("completion", shell)
