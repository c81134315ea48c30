"""The Flask and the Django application of the examples under gunicorn: workers, threads, with `--preload` or not."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from helpers.spools import state_of

if TYPE_CHECKING:
    from typing import Self

pytestmark = pytest.mark.program

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WORKERS = 3
CLIENTS = 8
EACH = 5
PATIENCE = 60.0
"""How long a worker may take to begin, in seconds: a limit for a hung test only."""

# Each worker enqueues when it begins, and then says so: so it is certain that all of them have used the spool.
SETTINGS = """
import os

def post_worker_init(worker):
    import {module} as application
    metadata = application.Envelope("worker")
    application.spool.enqueue(application.Mail.SEND, metadata, b"%d" % os.getpid()).unwrap()
    os.write({tell}, b"!")
"""


class Gunicorn:
    """The server, with a socket that listens before it begins; put `with` around it."""

    def __init__(self, folder: Path, module: str, name: str, *options: str) -> None:
        """Start it."""
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._told, tell = os.pipe()
        (folder / "settings.py").write_text(SETTINGS.format(module=module, tell=tell))
        descriptors = (listening.fileno(), tell)
        command = [
            *(sys.executable, "-m", "gunicorn", "--chdir", str(EXAMPLES), "--config", str(folder / "settings.py")),
            *("--bind", f"fd://{listening.fileno()}", "--worker-tmp-dir", str(folder), "--no-control-socket"),
            *("--workers", str(WORKERS), *options, f"{module}:{name}"),
        ]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "MAIL_SPOOL": str(folder / "spool")},
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=descriptors,
            start_new_session=True,
        )
        listening.close()
        os.close(tell)

    def __enter__(self) -> Self:
        """Wait until each worker has enqueued."""
        try:
            self.wait_for_workers(WORKERS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_for_workers(self, number: int) -> None:
        """Wait until so many more have enqueued."""
        for _ in range(number):
            ready, _, _ = select.select([self._told], [], [], PATIENCE)
            assert ready, "a worker hangs"
            assert os.read(self._told, 1) == b"!", "gunicorn has ended"

    def __exit__(self, *_: object) -> None:
        """Kill it, if it still runs, with its workers."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        os.close(self._told)

    def end(self) -> str:
        """Let it end in order; return what it has said."""
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=PATIENCE)[1]
        assert self.process.returncode == 0, said
        return said


def post(address: str, number: int) -> dict[str, bytes]:
    """Be a client that posts some messages; return their names and texts."""
    accepted: dict[str, bytes] = {}
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        for each in range(EACH):
            text = f"{number}/{each} ünd so on"
            answer = client.post("/mail", data={"recipient": "anne@example.org", "text": text})
            assert answer.status_code == 202, answer.text
            accepted[answer.json()["name"]] = text.encode()
    return accepted


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["plain", "preload"])
@pytest.mark.parametrize("kind", [[], ["--threads", "4"]], ids=["sync", "threads"])
@pytest.mark.parametrize("application", ["flask_app:app", "django_app:application"])
def test_what_was_answered_202_is_in_the_spool_once(application, kind, options, tmp_path):
    """By whatever worker and thread; all workers use the spool, also if it was opened before they were forked."""
    with Gunicorn(tmp_path, *application.split(":"), *kind, *options) as server:
        with ThreadPoolExecutor(CLIENTS) as threads:
            answers = list(threads.map(post, [server.address] * CLIENTS, range(CLIENTS)))
        said = server.end()
    assert "Traceback" not in said
    assert "Warning" not in said
    accepted = {name: text for answer in answers for name, text in answer.items()}
    assert len(accepted) == CLIENTS * EACH
    state = state_of(tmp_path / "spool")
    assert {name: state.data[name] for name in accepted} == accepted
    assert set(accepted) < set(state.names("send"))
    processes = {state.data[name] for name in state.names("send") if name not in accepted}
    assert len(processes) == len(state.entries()) - len(accepted) == WORKERS
    assert state.faults() == []


@pytest.mark.parametrize(
    "options", [pytest.param([], marks=pytest.mark.sample), ["--preload"]], ids=["plain", "preload"]
)
def test_a_worker_that_is_killed_loses_nothing(options, tmp_path):
    """The master forks another, which uses the spool too; what was answered stays."""
    with Gunicorn(tmp_path, "flask_app", "app", "--threads", "2", *options) as server:
        accepted = post(server.address, 0)
        state = state_of(tmp_path / "spool")
        workers = [int(state.data[name]) for name in state.names("send") if name not in accepted]
        os.kill(workers[0], signal.SIGKILL)
        server.wait_for_workers(1)  # for the one that takes its place
        accepted |= post(server.address, 1)
        server.end()
    state = state_of(tmp_path / "spool")
    assert {name: state.data[name] for name in accepted} == accepted
    assert len(state.entries()) == len(accepted) + WORKERS + 1
    assert state.faults() == []
