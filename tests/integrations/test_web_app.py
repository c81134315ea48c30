"""The web application of the examples: a real server, and a real client that talks to it on this machine."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

import httpx
import pytest

from helpers.spools import state_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

pytestmark = pytest.mark.program

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "examples"
ADDRESS = re.compile(r"running on (http://127\.0\.0\.1:\d+)")
LOOPS = ["asyncio", *(["uvloop"] if sys.implementation.name == "cpython" and sys.platform != "win32" else [])]
AT_A_TIME = 4
"""How many deliveries the application has in hand at most."""

# What stands in for sendmail: it says that it has begun, then hands over the message. Both files are FIFOs, so that
# each step waits for the test. (With `exec` there is one process only, which the server can kill.)
COMMAND = shlex.join(["sh", "-c", 'echo begun >"begun $2"; exec cat >"$2"', "sh"])
FAILING = shlex.join(["sh", "-c", 'echo begun >"begun $2"; cat >"$2"; exit 1', "sh"])


class Server:
    """The application, served by a process of its own on a port that the kernel chooses; put `with` around it."""

    def __init__(self, folder: Path, loop: str, *, before: str = "", **environment: str) -> None:
        """Start it; `before` is Python that is run in its process first."""
        where = ["--app-dir", str(EXAMPLES), "--host", "127.0.0.1", "--port", "0"]
        arguments = ["-m", "uvicorn", *where, "--loop", loop, "web_app:app"]
        # With all warnings; not by `-X dev`, whose asyncio also logs whatever takes long.
        command = [sys.executable, "-W", "default", *arguments]
        if before:
            command = [sys.executable, "-c", f"import os, sys\n{before}\nos.execv(sys.argv[1], sys.argv[1:])", *command]
        settings = {"MAIL_SPOOL": str(folder / "spool"), "MAIL_COMMAND": COMMAND, "MAIL_GRACE": "inf", **environment}
        self.process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []

    def __enter__(self) -> Self:
        """Wait until it serves."""
        try:
            found = ADDRESS.search(self.wait_for("running on"))
        except AssertionError:
            self.process.kill()
            raise
        assert found is not None
        # The environment's proxies are none of this connection's business.
        self.client = httpx.Client(base_url=found[1], trust_env=False, timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, if it still runs."""
        self.client.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def wait_for(self, words: str) -> str:
        """Read what it says up to the line with these words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"it never said {words!r}:\n{''.join(self.said)}")

    def send(self, recipient: str, text: str = "Hello!") -> str:
        """Post a message that is accepted; return its name."""
        answer = self.client.post("/mail", json={"recipient": recipient, "text": text})
        assert answer.status_code == 202, answer.text
        name: str = answer.json()["name"]
        assert answer.headers["Location"] == f"/mail/{name}"
        return name

    def kill(self) -> None:
        """Send SIGKILL, and wait until it is dead."""
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL

    def terminate(self) -> None:
        """Send SIGTERM, and wait until it has begun to end."""
        self.process.send_signal(signal.SIGTERM)
        self.wait_for("Waiting for application shutdown")

    def end(self, *, dead_letters: int = 0) -> None:
        """Wait until it has ended, well and without complaint, but for that about each dead letter."""
        self.wait_for("Application shutdown complete")
        self.wait_for("Finished server process")
        assert self.process.stderr is not None
        assert self.process.stderr.read() == ""
        assert self.process.wait() == -signal.SIGTERM  # uvicorn gives itself the signal again when all is done
        complaints = [line for line in self.said if not line.startswith(("INFO:", "sh: "))]  # those of the command
        assert [line for line in complaints if "is a dead letter" not in line] == []
        assert len(complaints) == dead_letters


def address(number: int) -> str:
    """Return a recipient."""
    return f"{number}@example.org"


def hand_over(folder: Path, recipient: str) -> str:
    """Wait until a message to the recipient is being delivered, and take it."""
    assert (folder / f"begun {recipient}").read_text() == "begun\n"
    return (folder / recipient).read_text()


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Name the event loop: asyncio's own, and uvloop."""
    return cast("str", request.param)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """Run one server for all tests that post what it refuses; return it, and its spool."""
    made = tmp_path_factory.mktemp("refusing")
    with Server(made, "asyncio") as server:
        yield server, made / "spool"


@pytest.fixture(scope="module")
def undelivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server whose deliveries all succeed at once."""
    with Server(tmp_path_factory.mktemp("keys"), "asyncio", MAIL_COMMAND="true") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Make a directory with FIFOs for some recipients."""
    recipients = [address(number) for number in range(AT_A_TIME + 2)]
    fifos = [tmp_path / name for recipient in recipients for name in (recipient, f"begun {recipient}")]
    for fifo in fifos:
        os.mkfifo(fifo)
    yield tmp_path
    # A command that outlived its server, because the test failed, waits no longer.
    opened = [os.open(fifo, os.O_RDONLY | os.O_NONBLOCK) for fifo in fifos]
    for fifo, fd in zip(fifos, opened, strict=True):
        fifo.unlink()
        os.close(fd)


@pytest.mark.sample
def test_what_was_answered_202_is_worked_off(loop, folder):
    """Every message is delivered as it was posted, and nothing is left in the spool."""
    with Server(folder, loop) as server:
        for number in range(AT_A_TIME + 2):
            server.send(address(number), f"Dear {number}, ünd so on")
        for number in range(AT_A_TIME + 2):
            assert hand_over(folder, address(number)) == f"Dear {number}, ünd so on"
        server.terminate()
        server.end()
    assert state_of(folder / "spool").entries() == set()
    assert state_of(folder / "spool").faults() == []


def test_a_message_is_on_disk_when_it_is_answered_202(loop, folder):
    """The entry has the name that the client was told, and holds what was posted."""
    with Server(folder, loop) as server:
        name = server.send(address(0), "Hello!")
        state = state_of(folder / "spool")
        assert state.data == {name: b"Hello!"}
        assert state.registry == {name}
        assert hand_over(folder, address(0)) == "Hello!"


def test_sigterm_lets_the_deliveries_in_hand_finish(loop, folder):
    """The server ends after them: they are delivered whole, and nothing is checked out."""
    with Server(folder, loop) as server:
        server.send(address(0), "x" * 200_000)
        assert (folder / f"begun {address(0)}").read_text() == "begun\n"
        server.terminate()
        assert (folder / address(0)).read_text() == "x" * 200_000
        server.end()
    assert state_of(folder / "spool").entries() == set()
    assert state_of(folder / "spool").faults() == []


def test_sigterm_gives_back_what_does_not_finish_in_time(loop, folder):
    """When the time of grace is over, the deliveries in hand are cancelled: their entries are back in the queue."""
    with Server(folder, loop, MAIL_GRACE="0") as server:
        names = [server.send(address(number)) for number in range(AT_A_TIME + 2)]
        for number in range(AT_A_TIME):
            assert (folder / f"begun {address(number)}").read_text() == "begun\n"
        server.terminate()
        server.end()
    state = state_of(folder / "spool")
    assert state.names("send") == names
    assert state.checked_out == {"send": {}, "failed": {}}
    assert state.faults() == []


def test_a_server_that_is_killed_in_the_middle_of_a_delivery_loses_nothing(loop, folder):
    """The next server does all that was accepted: what the first had in hand again, and what was waiting."""
    with Server(folder, loop) as server:
        names = [server.send(address(number)) for number in range(AT_A_TIME + 2)]
        for number in range(AT_A_TIME):
            assert (folder / f"begun {address(number)}").read_text() == "begun\n"
        server.kill()
    state = state_of(folder / "spool")
    assert sorted(state.checked_out["send"]) == names[:AT_A_TIME]
    assert state.names("send") == names[AT_A_TIME:]
    for number in range(AT_A_TIME):
        (folder / address(number)).read_text()  # the commands were not killed, and end now
    with Server(folder, loop) as server:
        for number in range(AT_A_TIME + 2):
            assert hand_over(folder, address(number)) == "Hello!"
        server.terminate()
        server.end()
    assert state_of(folder / "spool").entries() == set()
    assert state_of(folder / "spool").faults() == []


def test_a_client_can_ask_where_its_message_is(loop, folder):
    """It is waiting, in hand, or it has failed; one that is unknown is not found."""
    with Server(folder, loop, MAIL_COMMAND=FAILING, MAIL_ATTEMPTS="1") as server:
        *in_hand, last = [server.send(address(number)) for number in range(AT_A_TIME + 1)]
        for number in range(AT_A_TIME):
            assert (folder / f"begun {address(number)}").read_text() == "begun\n"
        assert server.client.get(f"/mail/{last}").json() == {"state": "waiting", "due_at": None, "attempts": 0}
        for name in in_hand:
            assert server.client.get(f"/mail/{name}").json() == {"state": "in hand", "done": None, "cancelling": False}
        for name in ["unknown", ".dot", "n" * 300]:
            assert server.client.get(f"/mail/{name}").status_code == 404
        for wait in ["-1", "31", "nan", ""]:
            assert server.client.get(f"/mail/{last}?wait={wait}").status_code == 422
        for number in range(AT_A_TIME):
            (folder / address(number)).read_text()
        hand_over(folder, address(AT_A_TIME))
        server.terminate()
        server.end(dead_letters=AT_A_TIME + 1)
    with Server(folder, loop) as server:
        for name in [*in_hand, last]:
            answer = server.client.get(f"/mail/{name}")
            assert (answer.status_code, answer.json()) == (200, {"state": "failed"})
    assert state_of(folder / "spool").names("failed") == sorted([*in_hand, last])


def test_a_client_can_wait_until_its_message_is_delivered(loop, folder):
    """The answer comes when it is; one that may not wait longer is told where it is meanwhile."""
    with Server(folder, loop) as server:
        name = server.send(address(0))
        assert (folder / f"begun {address(0)}").read_text() == "begun\n"
        assert server.client.get(f"/mail/{name}?wait=1").json() == {
            "state": "in hand",
            "done": None,
            "cancelling": False,
        }
        told: list[object] = []
        asking = threading.Thread(target=lambda: told.append(server.client.get(f"/mail/{name}?wait=30").json()))
        asking.start()
        assert (folder / address(0)).read_text() == "Hello!"
        asking.join()
        assert told == [{"state": "over"}]
        server.terminate()
        server.end()


def test_a_client_can_cancel_its_message(loop, folder):
    """Its command is ended, whichever server has it; the others go on."""
    with Server(folder, loop) as server, Server(folder, loop) as other:
        *_, last = [server.send(address(number)) for number in range(AT_A_TIME)]
        for number in range(AT_A_TIME):
            assert (folder / f"begun {address(number)}").read_text() == "begun\n"
        answer = other.client.delete(f"/mail/{last}")
        assert (answer.status_code, answer.json()) == (202, {"state": "in hand", "cancelling": True})
        assert server.client.get(f"/mail/{last}?wait=30").json() == {"state": "over"}
        assert other.client.delete(f"/mail/{last}").status_code == 404
        for number in range(AT_A_TIME - 1):
            assert (folder / address(number)).read_text() == "Hello!"
        for each in (server, other):
            each.terminate()
            each.end()
    state = state_of(folder / "spool")
    assert (state.entries(), state.faults()) == (set(), [])


def test_a_message_that_nobody_has_is_cancelled_at_once(loop, folder):
    """The answer is 200, and 404 for what nobody knows."""
    with Server(folder, loop) as server:
        *_, last = [server.send(address(number)) for number in range(AT_A_TIME + 1)]
        for number in range(AT_A_TIME):
            assert (folder / f"begun {address(number)}").read_text() == "begun\n"
        answer = server.client.delete(f"/mail/{last}")
        assert (answer.status_code, answer.json()) == (200, {"state": "over"})
        assert server.client.get(f"/mail/{last}").json() == {"state": "over"}
        for name in ["unknown", ".dot", "n" * 300, last]:
            assert server.client.delete(f"/mail/{name}").status_code == 404
        for number in range(AT_A_TIME):
            assert (folder / address(number)).read_text() == "Hello!"
        server.terminate()
        server.end()
    assert state_of(folder / "spool").entries() == set()


def test_a_client_is_told_that_its_message_was_asked_to_be_cancelled(folder):
    """The command does not end at once; meanwhile GET says so."""
    with Server(folder, "asyncio") as server:
        name = server.send(address(0))
        assert (folder / f"begun {address(0)}").read_text() == "begun\n"
        server.process.send_signal(signal.SIGSTOP)
        with Server(folder, "asyncio", MAIL_COMMAND="true") as other:
            assert other.client.delete(f"/mail/{name}").status_code == 202
            assert other.client.get(f"/mail/{name}").json() == {"state": "in hand", "done": None, "cancelling": True}
            server.process.send_signal(signal.SIGCONT)
            assert other.client.get(f"/mail/{name}?wait=30").json() == {"state": "over"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"recipient": "anne@example.org", "text": "\xff"}', 400),
        (b'{"more": ' + b"[" * 100_000, 400),
        (b"[]", 422),
        (b'{"recipient": "anne@example.org"}', 422),
        (b'{"recipient": "anne@example.org", "text": 5}', 422),
        (b'{"recipient": "anne", "text": "Hello!"}', 422),
        (b'{"recipient": "anne@example.org\\u0000", "text": "Hello!"}', 422),
    ],
)
def test_what_is_no_letter_is_not_accepted(body, status, refusing):
    """The client is told, and nothing is enqueued."""
    server, spool = refusing
    answer = server.client.post("/mail", content=body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert state_of(spool).registry == set()


def test_a_client_is_asked_to_come_again_when_there_is_no_room(folder):
    """The answer is 503 with `Retry-After`, nothing is enqueued, and what there is room for is accepted."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    with Server(folder, "asyncio", before=limit) as server:
        answer = server.client.post("/mail", json={"recipient": address(0), "text": "x" * 5000})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
        state = state_of(folder / "spool")
        assert (state.entries(), state.faults()) == (set(), [])
        server.send(address(0))
        assert hand_over(folder, address(0)) == "Hello!"
        server.terminate()
        server.end()


def test_a_server_whose_worker_fails_ends(loop, folder):
    """It says why, and does not go on accepting what nobody works off."""
    with Server(folder, loop) as server:
        send = folder / "spool" / "send"
        send.rename(folder / "aside")
        send.touch()  # no directory: the queue cannot be read
        server.wait_for("the worker has failed")
        server.wait_for("Application shutdown complete")
        assert server.process.wait() == -signal.SIGTERM


IGNORING = 'case "$2" in poison*) exec {end};; esac; echo begun >"begun $2"; exec cat >"$2"'
"""A command that does not read its input for some recipients, and ends at once."""


@pytest.mark.parametrize(
    ("end", "text", "left"),
    [
        ("true", "x" * 200_000, 0),
        ("true", "", 0),
        ("false", "x" * 200_000, 1),
        ("/there/is/no/command 2>/dev/null", "Hello!", 1),  # shells write what they say of it in pieces
        ("sleep inf", "Hello!", 1),
    ],
)
def test_a_command_that_does_not_read_its_input_harms_no_other_message(end, text, left, loop, folder):
    """It counts by its exit status, and is a dead letter when its attempts are used up; the others are delivered.

    One that hangs has a time limit.
    """
    command = shlex.join(["sh", "-c", IGNORING.format(end=end), "sh"])
    limit = "3" if end == "sleep inf" else "600"
    with Server(folder, loop, MAIL_COMMAND=command, MAIL_ATTEMPTS="1", MAIL_TIME_LIMIT=limit) as server:
        names = [server.send(f"poison{number}@example.org", text) for number in range(AT_A_TIME)]
        server.send(address(0))
        assert hand_over(folder, address(0)) == "Hello!"
        server.terminate()
        server.end(dead_letters=AT_A_TIME * left)
    state = state_of(folder / "spool")
    assert (state.names("send"), state.names("failed")) == ([], names * left)
    assert state.faults() == []


@pytest.mark.parametrize("recipient", ["x" * 200_000 + "@example.org", "poison@example.org"])
def test_a_message_that_cannot_be_delivered_becomes_a_dead_letter(recipient, loop, folder):
    """Whether its command fails or cannot even be started (its arguments are too long): the server goes on."""
    command = shlex.join(["sh", "-c", IGNORING.format(end="false"), "sh"])
    with Server(folder, loop, MAIL_COMMAND=command, MAIL_ATTEMPTS="1") as server:
        name = server.send(recipient)
        server.wait_for("is a dead letter")
        assert server.client.get(f"/mail/{name}").json() == {"state": "failed"}
        server.send(address(0))
        assert hand_over(folder, address(0)) == "Hello!"
        server.terminate()
        server.end(dead_letters=1)


def test_a_client_that_asks_again_with_its_key_has_its_message_sent_once(loop, folder):
    """Whether the message was in hand when it asked, was delivered, or the server was started anew in between."""
    letter, key = {"recipient": address(0), "text": "Hello!"}, {"Idempotency-Key": "payments/17"}
    answers = []
    with Server(folder, loop) as server:
        answers.append(server.client.post("/mail", json=letter, headers=key))
        assert (folder / f"begun {address(0)}").read_text() == "begun\n"
        answers.append(server.client.post("/mail", json=letter, headers=key))
        assert (folder / address(0)).read_text() == "Hello!"
        server.terminate()
        server.end()
    with Server(folder, loop, MAIL_GRACE="0") as server:
        answers.append(server.client.post("/mail", json=letter, headers=key))
        server.terminate()
        server.end()
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert len({answer.json()["name"] for answer in answers}) == 1
    assert state_of(folder / "spool").entries() == set()


@pytest.mark.parametrize("key", ["a/b", "/", "..", ".hidden", "k" * 5000, "\xe9", "a key", '"quoted"'])
def test_any_key_will_do(key, undelivered):
    """Each is accepted, gives a name that can be asked about, and another key gives another."""
    names = []
    for sent in (key, f"{key}2", key):
        header = {"Idempotency-Key": sent.encode("latin-1")}
        answer = undelivered.client.post("/mail", json={"recipient": address(0), "text": "Hello!"}, headers=header)
        assert (answer.status_code, answer.headers["Location"]) == (202, f"/mail/{answer.json()['name']}")
        assert undelivered.client.get(answer.headers["Location"]).status_code in {200, 404}
        names.append(answer.json()["name"])
    assert names[0] == names[2] != names[1]


def test_the_page_on_web_applications_shows_what_the_example_does():
    """Every piece of Python on it stands in the example, to the letter."""
    page = (PROJECT / "docs" / "web-applications.md").read_text(encoding="utf-8")
    example = (EXAMPLES / "web_app.py").read_text(encoding="utf-8")
    pieces = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(pieces) == 5
    assert [piece for piece in pieces if piece not in example] == []
