"""`trio_multispool.blocking` where processes fork, are interrupted, and end: nothing hangs, nothing is lost."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from helpers.children import Child
from helpers.processes import run_python
from helpers.spools import state_of

if TYPE_CHECKING:
    from pathlib import Path

PROLOGUE = """
import gc, os, signal, threading, warnings
import anyio
from helpers.gates import Gates, until
from helpers.spools import ANNE, MAIL, Mail
from trio_multispool import Err, NotASpool, Ok, Spoolable, blocking, prioritized_names
from trio_multispool.spool.spool import session_of
from trio_multispool.threads.loop_thread import loop_thread

warnings.simplefilter("error")
# Since Python 3.12, a fork of a process that has threads warns of what is tested here.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

def in_child(work):
    process = os.fork()
    if process == 0:
        signal.alarm(60)  # one that hangs is told by its status
        work()
        gc.collect()
        sys.exit(0)
    return process

def status_of(process):
    return os.waitpid(process, 0)[1]

path = sys.argv[1]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the spool is to be."""
    return tmp_path / "spool"


def run(code: str, path: Path, *arguments: str) -> list[str]:
    """Run code that knows all this, with every warning an error; return what it prints. It must say nothing else."""
    done = run_python(PROLOGUE + code, path, *arguments)
    assert done.stderr == ""
    return done.stdout.splitlines()


# Forking


def test_a_forked_child_uses_the_spool_of_its_parent(path):
    """It opens it again by itself, in a loop of its own; its parent goes on, and so does a child of the child."""
    run(
        """
spool = blocking.Spool.create(path, MAIL).unwrap()
spool.enqueue(Mail.SEND, ANNE, b"parent").unwrap()

def grandchild():
    spool.enqueue(Mail.SEND, ANNE, b"grandchild").unwrap()

def child():
    spool.enqueue(Mail.SEND, ANNE, b"child").unwrap()
    assert status_of(in_child(grandchild)) == 0
    assert len(spool.entries(Mail.SEND).unwrap()) == 3

os.chdir("/")
assert status_of(in_child(child)) == 0
spool.enqueue(Mail.SEND, ANNE, b"parent").unwrap()
""",
        path,
    )
    state = state_of(path)
    assert sorted(state.data.values()) == [b"child", b"grandchild", b"parent", b"parent"]
    assert state.faults() == []


@pytest.mark.sample
def test_many_threads_of_a_child_open_the_spool_once(place):
    """They all wait for the one that came first."""
    run(
        """
spool = blocking.Spool.create(path, MAIL).unwrap()

def child():
    load, loads = spool._load, []
    spool._load = lambda: loads.append(1) or load()
    threads = [threading.Thread(target=lambda: spool.enqueue(Mail.SEND, ANNE, b"").unwrap()) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [1]

assert status_of(in_child(child)) == 0
""",
        place,
    )
    assert len(state_of(place).entries()) == 16


def test_a_fork_in_the_middle_of_a_call_harms_neither_side(path):
    """The child has no such call: it makes its own, and ends. The parent's takes effect once."""
    run(
        """
calls = Gates()
names = prioritized_names()  # shared with the child
spool = blocking.Spool.create(path, Spoolable(Mail, str, names=names), system_calls=calls).unwrap()
for before in ("open", "write", "move", "sync"):
    held = calls.hold(before)
    caller = threading.Thread(target=lambda: spool.enqueue(Mail.SEND, "parent").unwrap())
    caller.start()
    anyio.run(held.reached)

    def child():
        spool.enqueue(Mail.SEND, "child").unwrap()

    # A lock that is being opened is not inherited: a fork waits for that.
    if before == "open":
        held.go()
        caller.join()
    assert status_of(in_child(child)) == 0
    held.go()
    caller.join()
""",
        path,
    )
    state = state_of(path)
    assert sorted(state.available["send"].values()) == [b"child"] * 4 + [b"parent"] * 4
    assert state.faults() == []


@pytest.mark.parametrize("threads", [1, 6])
def test_children_that_are_forked_at_any_moment_work(place, threads):
    """While threads of the parent make one call after the other; each child is a process that ends well."""
    run(
        """
spool = blocking.Spool.create(path, MAIL).unwrap()
stop = threading.Event()

def work():
    while not stop.is_set():
        spool.enqueue(Mail.SEND, ANNE, b"parent").unwrap()

def child():
    spool.enqueue(Mail.FAILED, ANNE, b"child").unwrap()

threads = [threading.Thread(target=work) for _ in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
assert [status_of(in_child(child)) for _ in range(20)] == [0] * 20
stop.set()
for thread in threads:
    thread.join()
""",
        place,
        str(threads),
    )
    state = state_of(place)
    assert len(state.names("failed")) == 20
    assert state.faults() == []


def test_a_fork_while_another_thread_opens_a_spool_leaves_the_child_no_lock(place):
    """What the parent's threads wait for is not there to be waited for in the child."""
    run(
        """
spool = blocking.Spool.create(path, MAIL).unwrap()
held, over = threading.Event(), threading.Event()

def hold():
    with loop_thread().mutex:
        held.set()
        over.wait()

holder = threading.Thread(target=hold)
holder.start()
held.wait()

def child():
    spool.enqueue(Mail.SEND, ANNE, b"child").unwrap()
    spool.close()

assert status_of(in_child(child)) == 0
over.set()
holder.join()
""",
        place,
    )
    assert [*state_of(place).data.values()] == [b"child"]


def test_a_child_does_not_close_what_it_inherited(path):
    """A lock in there may be held for ever. What the child opens itself is another."""
    run(
        """
spool = blocking.Spool.create(path, MAIL).unwrap()
inherited = session_of(spool._opened[1]).storage
calls = []
inherited.layout.close = lambda: calls.append("closed")

def child():
    global spool
    spool.enqueue(Mail.SEND, ANNE, b"child").unwrap()
    spool = None
    gc.collect()
    assert calls == []

def unused():
    global spool
    spool = None
    gc.collect()
    assert calls == []

del inherited
assert [status_of(in_child(work)) for work in (child, unused)] == [0, 0]
spool = None
gc.collect()
assert calls == ["closed"], "in the parent, it is closed with the last reference"
""",
        path,
    )
    assert [*state_of(path).data.values()] == [b"child"]


def test_children_of_multiprocessing_enqueue(place):
    """Workers of a pool, by `fork`: each name is given once."""
    [names] = run(
        """
import multiprocessing

spool = blocking.Spool.create(path, MAIL).unwrap()
spool.enqueue(Mail.SEND, ANNE, b"parent").unwrap()

def enqueue(number):
    return spool.enqueue(Mail.SEND, ANNE, b"%d" % number).unwrap().name

with multiprocessing.get_context("fork").Pool(3) as pool:
    print(*pool.map(enqueue, range(30)))
    pool.close()
    pool.join()
""",
        place,
    )
    state = state_of(place)
    assert len(set(names.split())) == 30
    assert set(names.split()) < set(state.names("send"))
    assert len(state.entries()) == 31
    assert state.faults() == []


def test_closing_in_a_child_does_not_close_for_the_parent(place):
    """Nor does the end of the child; and a spool that was closed before the fork stays closed."""
    run(
        """
spool = blocking.Spool.create(path, MAIL).unwrap()
closed = blocking.Spool.load(path, MAIL).unwrap()
closed.close()

def child(*, use):
    if use:
        spool.enqueue(Mail.SEND, ANNE, b"child").unwrap()
    spool.close()
    for each in (spool, closed):
        try:
            each.entries(Mail.SEND)
        except anyio.ClosedResourceError as error:
            assert "has been closed" in str(error)
        else:
            raise AssertionError("it is open")

assert status_of(in_child(lambda: child(use=True))) == 0
assert status_of(in_child(lambda: child(use=False))) == 0
spool.enqueue(Mail.SEND, ANNE, b"parent").unwrap()
""",
        place,
    )
    assert sorted(state_of(place).data.values()) == [b"child", b"parent"]


def test_a_child_that_cannot_open_the_spool_raises_the_error(path):
    """With a note that says what it was doing; the error has its fields."""
    run(
        """
spool = blocking.Spool.create(path, MAIL).unwrap()
os.rename(path, path + " moved")

def child():
    for _ in range(2):
        try:
            spool.enqueue(Mail.SEND, ANNE, b"child")
        except NotASpool as error:
            assert error.path == path
            assert error.__notes__ == [f"the spool {path} could not be opened again in this forked process"]
        else:
            raise AssertionError("it was opened")
    os.rename(path + " moved", path)
    spool.enqueue(Mail.SEND, ANNE, b"child").unwrap()

assert status_of(in_child(child)) == 0
""",
        path,
    )


# Interrupts


INTERRUPTS = {
    "KeyboardInterrupt": "number = signal.SIGINT",
    "TimeoutError": """
def ring(*_):
    raise TimeoutError
number = signal.SIGALRM
_ = signal.signal(number, ring)
""",
}
INTERRUPTED = """
calls = Gates()
spool = blocking.Spool.create(path, MAIL, system_calls=calls).unwrap()
enqueuings = session_of(spool._opened[1]).enqueuings
held = calls.hold(sys.argv[2], sys.argv[3], after=bool(sys.argv[4:]))

def interrupt():
    anyio.run(held.reached)
    signal.pthread_kill(threading.main_thread().ident, number)
    anyio.run(until, lambda: enqueuings._taken[0].withdrawn)
    held.go()

threading.Thread(target=interrupt).start()
try:
    spool.enqueue(Mail.SEND, ANNE, b"Hello")
except (KeyboardInterrupt, TimeoutError) as error:
    print(type(error).__name__, *error.__notes__)
entries = spool.entries(Mail.SEND).unwrap()
print(len(entries), *[f"Ok(value={entry.name!r})" for entry in entries])
spool.enqueue(Mail.SEND, ANNE, b"again").unwrap()
"""


@pytest.mark.parametrize("kind", INTERRUPTS)
def test_an_interrupt_withdraws_a_call_that_has_not_committed(kind, path):
    """The note says that nothing was done; nothing is left of it, and the next call works."""
    told = run(INTERRUPTS[kind] + INTERRUPTED, path, "write", "")
    assert told == [f"{kind} the call was withdrawn, and had no effect", "0"]
    assert [*state_of(path).data.values()] == [b"again"]
    assert state_of(path).faults() == []


@pytest.mark.parametrize("kind", INTERRUPTS)
def test_an_interrupt_after_the_commit_tells_of_the_effect(kind, path):
    """The entry is there once, and the note has its name."""
    note, found = run(INTERRUPTS[kind] + INTERRUPTED, path, "sync", "send", "after")
    number, answer = found.split(" ", 1)
    assert number == "1"
    assert note == f"{kind} enqueue into send was already done when it was cancelled: {answer}"
    assert sorted(state_of(path).data.values()) == [b"Hello", b"again"]
    assert state_of(path).faults() == []


def test_an_interrupt_that_finds_the_call_over_tells_its_answer(path):
    """It came between the end and the return; so nothing was withdrawn."""
    told = run(
        """
from trio_multispool.threads import loop_thread as module

spool = blocking.Spool.create(path, MAIL).unwrap()
wait, waits = module._Call.wait, []

def wait_and_be_interrupted(call):
    wait(call)
    waits.append(call)
    if len(waits) == 1:
        raise KeyboardInterrupt

module._Call.wait = wait_and_be_interrupted
for call in (lambda: spool.enqueue(Mail.SEND, ANNE, b"Hello"), lambda: spool.enqueue("send", ANNE, b"Hello")):
    waits.clear()
    try:
        call()
    except KeyboardInterrupt as error:
        print(*error.__notes__)
""",
        path,
    )
    [name] = state_of(path).names("send")
    assert told[0] == f"the call was already done: Ok(value=<Entry {name!r} in queue 'send' of {path}>)"
    assert told[1].startswith("the call was already over: TypeError(")


def test_a_signal_that_another_thread_gets_interrupts_too(path):
    """The kernel gives it to any thread, and does not wake the main thread then: that looks by itself."""
    blocked = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # so that the other thread gets it"
    code = INTERRUPTED.replace("try:\n", f"{blocked}\ntry:\n")
    code = code.replace("signal.pthread_kill(threading.main_thread().ident, number)", "os.kill(os.getpid(), number)")
    assert code.count("SIG_BLOCK") == code.count("os.kill") == 1
    told = run(INTERRUPTS["KeyboardInterrupt"] + code, path, "write", "")
    assert told == ["KeyboardInterrupt the call was withdrawn, and had no effect", "0"]


def test_a_second_interrupt_does_not_wait(path):
    """Who has a disk that does not answer ends the program all the same."""
    told = run(
        """
calls = Gates()
spool = blocking.Spool.create(path, MAIL, system_calls=calls).unwrap()
enqueuings = session_of(spool._opened[1]).enqueuings
held = calls.hold("move")

def interrupt():
    anyio.run(held.reached)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    anyio.run(until, lambda: enqueuings._taken[0].withdrawn)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    spool.enqueue(Mail.SEND, ANNE, b"Hello")
except KeyboardInterrupt as error:
    print(type(error.__context__).__name__, held.there)
held.go()
spool.enqueue(Mail.SEND, ANNE, b"again").unwrap()
""",
        path,
    )
    assert told == ["KeyboardInterrupt True"]
    assert b"again" in state_of(path).data.values()
    assert state_of(path).faults() == []


# The end of the process


@pytest.mark.parametrize("end", ["", "sys.exit()", "del spool", "spool.close()"])
def test_a_script_that_forgets_to_close_ends_well(end, place):
    """Its entry is on disk, its status is 0, and it says nothing."""
    run(
        f"""
spool = blocking.Spool.create(path, MAIL).unwrap()
spool.enqueue(Mail.SEND, ANNE, b"Hello").unwrap()
{end}
""",
        place,
    )
    assert [*state_of(place).data.values()] == [b"Hello"]
    assert state_of(place).faults() == []


def test_a_process_may_enqueue_while_it_ends(place):
    """In a function that `atexit` calls."""
    run(
        """
import atexit
spool = blocking.Spool.create(path, MAIL).unwrap()
atexit.register(lambda: spool.enqueue(Mail.SEND, ANNE, b"the last").unwrap())
""",
        place,
    )
    assert [*state_of(place).data.values()] == [b"the last"]


def test_a_process_ends_though_a_daemon_thread_is_in_a_call(path):
    """It has been told nothing, so nothing was promised; what it has left is collected."""
    run(
        """
calls = Gates()
spool = blocking.Spool.create(path, MAIL, system_calls=calls).unwrap()
held = calls.hold("move")
threading.Thread(target=lambda: spool.enqueue(Mail.SEND, ANNE, b"Hello"), daemon=True).start()
anyio.run(held.reached)
""",
        path,
    )
    done = run_python(
        """
        import trio
        from helpers.spools import MAIL
        from trio_multispool import Spool

        async def recover():
            (await (await Spool.load(sys.argv[1], MAIL)).unwrap().recover()).unwrap()

        trio.run(recover)
        """,
        path,
    )
    assert done.returncode == 0
    assert state_of(path).entries() == set()
    assert state_of(path).faults() == []


def test_what_was_ok_survives_a_kill(place):
    """The answer is the promise."""

    def enqueue(parent: Any, place: str) -> None:
        from helpers.spools import ANNE, MAIL, Mail
        from trio_multispool import blocking

        spool = blocking.Spool.create(place, MAIL).unwrap()
        while True:
            parent.say(spool.enqueue(Mail.SEND, ANNE, b"Hello").unwrap().name)

    with Child(enqueue, place) as child:
        names = [child.hear()[0] for _ in range(20)]
        child.kill()
        names += [name for [name] in child]
    assert child.process.returncode == -signal.SIGKILL
    assert set(names) <= set(state_of(place).names("send"))
