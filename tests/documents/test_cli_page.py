"""The command's page: each of its blocks is typed into a real shell, beside a real spool, and shows what it says."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from helpers.pages import PROJECT, Known, Shell, consoles, look_at
from helpers.stores import claim, enqueue, make_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.page

ONE, TWO = "20261124T015604.568766441Z-987a8bb4", "20261124T015912.173982627Z-c437ccd8"
OLD, LEFT = "20261024T015912.173982627Z-c437ccd8", "20261124T020000.000000000Z-11aa22bb"
META = b'{"to":"anne@example.org","attempts":0}'
LETTER = b"Dear Anne,\n" * 112
MINUTE, HOUR, DAY = 60, 3600, 86_400

VARIES = re.compile(
    r"""(?:\ by\ )?\w+\[\d+\] | \{"pid":\d+,"command":"\w+","host":"[^"]+"\} | \b\d+s\b | \b\d\d+\.\d+\b
    | \d{4}-\d\d-\d\d(?:\ \d\d:\d\d:\d\d\ UTC | T[\d:.]+Z)""",
    re.VERBOSE,
)
"""What differs from one time to the next, and is no name: processes, times, and ages in seconds."""

HOLDING = """
import sys
from helpers.stores import claim, make_store
store = make_store(sys.argv[1])
held = [claim(store, "send", name) for name in sys.argv[2:]]
print("they are held", flush=True)
sys.stdin.read()
"""
"""A process that has entries checked out."""


class Scene:
    """A home folder with a spool `var/mail` in it, and the programs that the page names."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.spool, self._stack = folder, folder / "var" / "mail", stack
        (folder / "bin").mkdir()
        (folder / ".zfunc").mkdir()
        (folder / ".config" / "fish" / "completions").mkdir(parents=True)
        (folder / "var").mkdir()
        for name in ("letter.txt", "reminder.txt", "greeting.txt"):
            (folder / name).write_bytes(LETTER)

    def program(self, path: str, script: str) -> None:
        """Make a program."""
        file = self.folder / path
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def make(self, *entries: tuple[str, str, float], meta: bytes = META) -> None:
        """Make the spool with entries: the queue of each, its name, and how many seconds old it is."""
        with contextlib.closing(make_store(self.spool)) as store:
            for queue, name, age in entries:
                enqueue(store, queue, name, meta, LETTER)
                then = time.time() - age
                os.utime(self.spool / queue / name, (then, then))

    def hold(self, *names: str) -> subprocess.Popen[bytes]:
        """Start a process that has these entries of `send`."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        program = self.folder / "bin" / "mailer"  # the kernel calls a process after the file
        program.symlink_to(sys.executable)
        command = [program, "-c", HOLDING, self.spool, *names]
        holder = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"they are held\n"
        self._stack.callback(end, holder)
        return holder

    def set_aside(self, name: str) -> None:
        """Set an entry of `send` aside."""
        with contextlib.closing(make_store(self.spool)) as store:
            reason = f"metadata of entry {name!r} cannot be decoded: JSON is malformed"
            store.quarantine(claim(store, "send", name), reason)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def nothing(_scene: Scene) -> None:
    """There is no spool yet."""


def for_put(scene: Scene) -> None:
    """There are two spools, and something to enqueue."""
    scene.make()
    make_store(scene.folder / "var" / "backups", queues=("upload",)).close()
    scene.program("bin/pg_dump", "echo CREATE TABLE")


def busy(scene: Scene) -> None:
    """A mailer has two entries, fourteen are available, and one has failed."""
    names = [f"20261124T0157{number:02}.000000000Z-987a8bb4" for number in range(15)]
    scene.make(("failed", OLD, 2 * DAY), ("send", ONE, 37), *(("send", name, 200) for name in names))
    scene.hold(ONE, names[0])


def two(scene: Scene) -> None:
    """A mailer has one entry, and another is available."""
    scene.make(("send", ONE, 37), ("send", TWO, 9))
    scene.hold(ONE)


def aged(scene: Scene) -> None:
    """Entries of many ages."""
    ages = {"send": (2, 5, 8, 3), "failed": (0, 0, 0, 0, 1, 3, 12)}
    scene.make(
        *(
            (queue, f"{queue}-{limit}-{number}", 4 * MINUTE * 2**limit)
            for queue, counts in ages.items()
            for limit, count in enumerate(counts)
            for number in range(count)
        )
    )


def grown(scene: Scene) -> None:
    """Four minutes ago, somebody looked; six entries came since."""
    busy(scene)
    command = [sys.executable, "-m", "trio_multispool", "stats", "var/mail", "--json"]
    look = subprocess.run(command, cwd=scene.folder, capture_output=True, check=True).stdout
    earlier = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(time.time() - 240))}Z"
    text = re.sub(r'"at":"[^"]*"', f'"at":"{earlier}"', look.decode()).replace('"entries":16', '"entries":10')
    (scene.folder / "before.json").write_text(text)


def for_work(scene: Scene) -> None:
    """Two entries, and programs that fail for one of them."""
    scene.make(("send", ONE, 37), ("send", TWO, 9))
    for path in ("bin/sendmail", "deliver.sh"):
        scene.program(path, f'test "$MULTISPOOL_NAME" != {TWO} || exit 75')


def failed(scene: Scene) -> None:
    """One has failed two hours ago, and twelve a long time ago; a mailer has one."""
    scene.make(("failed", TWO, 2 * HOUR), meta=b'{"status":75}')
    scene.make(("send", ONE, 37), *(("failed", f"old-{number}", 31 * DAY) for number in range(12)))
    scene.hold(ONE)


def expired(scene: Scene) -> None:
    """One failed a month ago."""
    scene.make(("failed", OLD, 31 * DAY))
    scene.program("archive.sh", "cat > archived")


def aside(scene: Scene) -> None:
    """One is in quarantine."""
    scene.make(("send", ONE, 12 * MINUTE))
    scene.set_aside(ONE)


def elsewhere(scene: Scene) -> None:
    """Something to take along, and a machine elsewhere."""
    scene.make(("failed", ONE, 9), ("send", TWO, 9))
    (scene.folder / "elsewhere" / "var").mkdir(parents=True)
    make_store(scene.folder / "elsewhere" / "var" / "mail").close()
    scene.program("bin/ssh", 'cd "$1"; shift; exec "$@"')


def dead(scene: Scene) -> None:
    """A mailer died, and an enqueue was killed."""
    scene.make(("send", ONE, 37))
    (scene.spool / ".registry" / LEFT).touch()
    (scene.spool / ".data" / LEFT).touch()
    end(scene.hold(ONE))


def damaged(scene: Scene) -> None:
    """One waits for too long, and one has lost its data."""
    scene.make(("send", ONE, 3 * HOUR), ("failed", TWO, 2 * HOUR))
    (scene.spool / ".data" / TWO).unlink()


def not_adopted(scene: Scene) -> None:
    """It has no `.spool.json`."""
    scene.make()
    (scene.spool / ".spool.json").unlink()


SCENES: dict[str, Callable[[Scene], None]] = {
    "multispool create var/mail send retry failed": nothing,
    "multispool put var/mail send letter.txt --meta to=anne@example.org --meta attempts=0": for_put,
    "multispool ls var/mail": busy,
    "multispool ls var/mail send --long": two,
    f"multispool show var/mail {ONE}": two,
    "multispool ls var/mail --ages": aged,
    "multispool stats var/mail --json > before.json": busy,
    "multispool stats var/mail --since before.json": grown,
    "multispool top var/mail": busy,
    "multispool work var/mail send --jobs 4 --failed failed -- sendmail -t": for_work,
    "multispool work var/mail send --attempts 5 --retry-delay 30s --failed failed -- ./deliver.sh": for_work,
    f"multispool mv var/mail {TWO} send": failed,
    f'multispool cancel var/mail {TWO} {ONE} --reason "withdrawn"': two,
    'multispool pause var/mail send --for 10m --reason "the relay is being replaced"': for_work,
    "multispool retry var/mail failed send --older-than 1h --meta status=75 --dry-run": failed,
    "multispool expire var/mail failed --max-age 30d --max-count 100000 --dry-run": expired,
    "multispool quarantine ls var/mail": aside,
    "multispool export var/mail failed > failed.tar": elsewhere,
    "multispool recover var/mail --dry-run": dead,
    "multispool fsck var/mail --max-send-age 1h": damaged,
    "multispool adopt var/mail": not_adopted,
    "multispool ls var/mail send --json": busy,
    "source <(multispool completion bash)": nothing,
    "multispool ls var/mail/send": two,
}
"""What is there when a block is typed, by the block's first command."""

NOT_TYPED = {
    'python -m pip install "trio-multispool[cli]"': "it made this environment",
    "mkdir /srv/jobs && chgrp mail /srv/jobs": "it is for root",
    "multispool --install-completion": "what it says depends on whose shell it is",
    "multispool monitor var/mail --max-send-age 1h": "it takes minutes",
}


CONSOLES = consoles(PROJECT / "docs" / "cli.md")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Make a home, without a spool."""
    with contextlib.ExitStack() as stack:
        yield Scene(tmp_path, stack)


def test_every_block_has_its_scene_or_a_reason():
    """And every scene its block."""
    assert sorted(block[0].command for block in CONSOLES) == sorted({**SCENES, **NOT_TYPED})


def like(line: str) -> str:
    """Return a line of which only what does not vary is left; columns are as wide as what is in them."""
    return " ".join(VARIES.sub("…", line).split())


def compare(known: Known, shown: list[str], seen: list[str]) -> None:
    """Compare what the page shows with what was seen, but for what varies."""
    known.check([like(line) for line in shown], [" ".join(line.split()) for line in seen])


@pytest.mark.parametrize("block", [it for it in CONSOLES if it[0].command in SCENES], ids=lambda it: it[0].command)
def test_a_block_shows_what_is_seen(scene, block):
    """Each command is typed in its turn, and its lines, on standard output and error, are those of the page."""
    SCENES[block[0].command](scene)
    known = Known({name: name for name in (ONE, TWO, OLD, LEFT)} if block[0].command.split()[1] != "put" else {})
    with contextlib.closing(Shell(scene.folder)) as shell:
        for step in block:
            shown = [line.replace("/home/anne", str(scene.folder)) for line in step.shown]
            command = known.told(step.command)
            if command.startswith("multispool top "):
                look_at(command, scene.folder)
            elif command.startswith("multispool work "):  # it goes on, in any order
                shell.type(command)
                compare(known, sorted(shown), sorted(shell.line() for _ in shown))
            elif "--json" in command and shown:
                compare(known, ["".join(shown)], shell.run(command))
            else:
                compare(known, shown, shell.run(command))


@pytest.mark.parametrize("seen", [[], ["one"], ["one", "two", "four"], ["two", "three"]])
def test_lines_that_are_not_what_the_page_shows_fail(seen):
    """The comparison can fail."""
    with pytest.raises(AssertionError):
        compare(Known(), ["one", "…", "three"], seen)
