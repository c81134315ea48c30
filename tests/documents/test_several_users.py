"""docs/several-users.md: each line is typed by the user in its prompt, in one spool after the other."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import pytest

from helpers import users
from helpers.pages import PROJECT, Known, consoles
from helpers.processes import run_python

pytestmark = [pytest.mark.page, pytest.mark.skipif(users.why_not() != "", reason=users.why_not())]

PAGE = PROJECT / "docs" / "several-users.md"
WHO = {"root": users.ROOT, "web": users.ANNE, "worker": users.BOB, "watcher": users.STRANGER}

TYPIST = """
import json, os, pathlib, subprocess, sys, tempfile
from helpers import mounts, users

who, steps, environment = json.loads(sys.argv[1])
kept = pathlib.Path(tempfile.mkdtemp())
users.open_the_way([path for path in sys.path if path] + [sys.prefix, sys.base_prefix])
for file, line in (("passwd", "{name}:x:{number}:{number}::/:/bin/sh\\n"), ("group", "{name}:x:{number}:\\n")):
    lines = [line.format(name=name, number=number) for name, number in who.items() if number]
    made = kept / file
    made.write_text(pathlib.Path("/etc", file).read_text() + "".join(lines))
    made.chmod(0o644)
    mounts.bind(made, f"/etc/{file}")
for privileges, command in steps:
    done = subprocess.run(
        [*privileges, "bash", "-c", command], cwd="/", env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
    )
    print(json.dumps(done.stdout), flush=True)
"""


def type_as(steps: list[tuple[str, str]], srv: Path) -> list[str]:
    """Run commands of `/srv`, each as a user by name, and return what each showed."""
    commands = srv / "bin"
    commands.mkdir(exist_ok=True)
    path = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:0] = {path!r}; from trio_multispool.cli import main; sys.exit(main(sys.argv[1:]))"
    (commands / "multispool").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    (commands / "multispool").chmod(0o755)
    numbers = {"mail-spool": users.SHARED, **{name: user.number for name, user in WHO.items()}}
    environment = {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    typed = [(WHO[name].privileges(), command.replace("/srv", str(srv))) for name, command in steps]
    done = run_python(TYPIST, json.dumps([numbers, typed, environment]))
    return [json.loads(line).replace(str(srv), "/srv") for line in done.stdout.splitlines()]


def test_whoever_types_what_the_page_says_sees_what_it_shows(shared_directory):
    """As four users: root, two of a group, and one who only looks."""
    steps = [step for console in consoles(PAGE) for step in console]
    assert len(steps) > 20
    seen = type_as([(step.who, step.command) for step in steps], shared_directory)
    known = Known()
    for step, answer in zip(steps, seen, strict=True):
        known.check(step.shown, answer.splitlines())


def let_in(top: Path, number: int, file_mode: int, directory_mode: int) -> None:
    """Do what `setfacl -R -m u:NUMBER:… -m d:u:NUMBER:…` does, which is not installed everywhere."""

    def allow(path: str | Path, mode: int, *kinds: str) -> None:
        bits = os.stat(path).st_mode
        entries = [(1, bits >> 6 & 7, -1), (2, mode, number), (4, bits >> 3 & 7, -1), (16, bits >> 3 & 7 | mode, -1)]
        packed = b"".join(struct.pack("<HHi", *entry) for entry in [*entries, (32, bits & 7, -1)])
        for kind in kinds:
            os.setxattr(path, f"system.posix_acl_{kind}", struct.pack("<I", 2) + packed)

    for folder, _, files in os.walk(top):
        allow(folder, directory_mode, "access", "default")
        for file in files:
            allow(Path(folder, file), file_mode, "access")


SHARE = [
    ("root", "install -d -o worker -g mail-spool -m 770 /srv/mail"),
    ("worker", "multispool create /srv/mail send --mode 770"),
    ("web", "echo Hello | multispool put /srv/mail send - --name before"),
]


def test_a_user_whom_an_acl_lets_read_sees_what_comes_later_too(tmp_path, shared_directory):
    """Files are made with the spool's mode, which does not take away what a default ACL gives."""
    try:
        let_in(tmp_path, users.STRANGER.number, 4, 5)
    except OSError as error:
        pytest.skip(f"the file system keeps no ACLs: {error}")
    type_as(SHARE, shared_directory)
    let_in(shared_directory / "mail", users.STRANGER.number, 4, 5)
    steps = [
        ("web", "echo later | multispool put /srv/mail send - --name later"),
        ("watcher", "multispool cat /srv/mail before && multispool cat /srv/mail later && multispool fsck /srv/mail"),
        ("worker", "multispool work /srv/mail send --once --quiet -- cat"),
    ]
    assert type_as(steps, shared_directory)[1:] == [
        "Hello\nlater\nnothing is wrong\n",
        "Hello\nlater\nmultispool: done 2, failed 0\n",
    ]


def test_a_user_whom_an_acl_lets_write_needs_setgid(tmp_path, shared_directory):
    """Without it, what that user makes would be for that user alone, so it is refused with the cure."""
    try:
        let_in(tmp_path, users.STRANGER.number, 6, 7)
    except OSError as error:
        pytest.skip(f"the file system keeps no ACLs: {error}")
    type_as(SHARE, shared_directory)
    let_in(shared_directory / "mail", users.STRANGER.number, 6, 7)
    put = "echo late | multispool put /srv/mail send - --name late"
    steps = [
        ("watcher", put),
        ("root", "find /srv/mail -type d -exec chmod g+s {} +"),
        ("watcher", put),
        ("worker", "multispool work /srv/mail send --once --quiet -- cat"),
    ]
    refused, _, enqueued, worked = type_as(steps, shared_directory)
    assert "the spool has the group 'mail-spool': run this as a member" in refused
    assert (enqueued, worked) == ("late\n", "Hello\nlate\nmultispool: done 2, failed 0\n")
