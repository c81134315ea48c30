"""`multispool top` as a person uses it: on a terminal of its own, with keys, beside a worker that goes on working."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys

import pytest

from helpers.stores import claim, enqueue, make_store, release
from helpers.terminals import ALTERNATE, CURSOR_SHOWN, WRAPPING
from trio_multispool.cli.top.actions import command
from trio_multispool.cli.top.view import Action
from trio_multispool.looks.directory import Looker
from trio_multispool.model.cancellation import CancelRequest
from trio_multispool.model.lifecycle import State
from trio_multispool.model.notes import PROGRESS, encode_progress

DOWN, UP, ESCAPE, ENTER = "\x1b[B", "\x1b[A", "\x1b", "\r"
AS_FOUND = {CURSOR_SHOWN: True, WRAPPING: True, ALTERNATE: False}
SOON = ("--every", "0.1")


def has(*texts):
    """Return a condition: all of these texts are on the screen."""
    return lambda shown: all(text in shown for text in texts)


def lacks(text):
    """Return a condition: the text has gone from the screen."""
    return lambda shown: text not in shown


def row(shown, start):
    """Return the words of the line that begins so, whether it is selected or not."""
    (line,) = [line for line in shown.splitlines() if line[2:].startswith(start)]
    return line.removeprefix(">").split()


@pytest.fixture
def aside(spool, put):
    """Leave an entry in quarantine."""
    put("broken", meta='{"to": ["anne"')
    for directory in (".quarantine/send", ".quarantine/.reasons"):
        (spool / directory).mkdir(parents=True, exist_ok=True)
    (spool / "send/broken").rename(spool / ".quarantine/send/broken")
    (spool / ".quarantine/.reasons/broken").write_text("JSON is malformed\n")
    return "broken"


@pytest.mark.parametrize("columns", [80, 200])
def test_it_shows_queues_check_outs_and_quarantine(  # noqa: PLR0913, PLR0917  # fixtures
    multispool, full_screen, spool, put, gate, owner_of, aside, columns
):
    """What is queued, who works on what, and what is set aside: on one screen, and it follows what happens."""
    put("one")
    put("two")
    multispool.done("put", spool, "retry", os.devnull, "--delay", "1d")
    worker = multispool.start("work", spool, "send", "--", *gate.command())
    gate.wait_begun()
    screen = full_screen("top", spool, *SOON, columns=columns)
    shown = screen.until(has("CHECKED OUT", "IN QUARANTINE", "▁", "set aside in quarantine"))
    assert max(map(len, shown.splitlines())) <= columns
    assert row(shown, "send ")[:2] == ["send", "1"]
    assert row(shown, "send ")[5:8] == ["1", "-", "1"]
    assert row(shown, "retry")[:8] == ["retry", "0", *row(shown, "retry")[2:5], "-", "1", "-"]
    owner = owner_of(worker)
    assert row(shown, "one ")[1:3] == ["send", "unknown" if owner is None else f"{owner['command']}[{worker.pid}]"]
    assert row(shown, aside)[1] == "send"
    gate.let_go()
    gate.wait_begun()
    shown = screen.until(lambda shown: "  two " in shown and "  one " not in shown)
    assert row(shown, "send ")[:2] == ["send", "0"]
    gate.let_go()
    screen.until(has("CHECKED OUT: nothing"))
    (spool / "new").mkdir()
    screen.until(has("  new "))
    (spool / "new").rmdir()
    screen.until(lacks("  new "))
    screen.press("q")
    assert screen.end() == 0
    assert worker.poll() is None


def test_keys_sort_select_and_look_into_queues_and_entries(full_screen, spool, put, aside):
    """From the overview into a queue, into an entry, and back; the selection stays with what it is on."""
    put("letter", meta='{"to": "anne", "subject": "Hello"}', data="Dear Anne")
    put("other", queue="retry")
    screen = full_screen("top", spool, *SOON)
    screen.until(has("QUEUE▲", "> failed"))
    screen.press("2")
    screen.until(has("▼DEPTH", "> failed"))
    screen.press("2")
    screen.until(has("▲DEPTH"))
    screen.press(UP * 9 + DOWN * 2)
    screen.until(has("> send"))
    screen.press(ENTER)
    shown = screen.until(has("→  send", "quarantined", "available"))
    assert [row(shown, name)[1] for name in ("broken", "letter")] == ["quarantined", "available"]
    screen.press(DOWN + ENTER)
    shown = screen.until(has('"subject": "Hello"'))
    assert has("letter", "available", "data      9 B", f"{spool}/.data/letter"[:60])(shown)
    screen.press(ESCAPE)
    screen.until(has("> letter"))
    screen.press(UP + ENTER)
    screen.until(has("reason    JSON is malformed", '{"to": ["anne"'))
    screen.press(ESCAPE)
    screen.until(has("> broken", "letter"))
    screen.press(ESCAPE)
    screen.until(has("> send", "PROBLEMS"))
    screen.press("h")
    screen.until(has("asks first"))
    screen.press("q")
    assert screen.end() == 0


def test_an_entry_that_goes_while_it_is_looked_at_is_said_to_have_gone(full_screen, spool, put):
    """The same for the queue."""
    (spool / "new").mkdir()
    put("letter", queue="new")
    screen = full_screen("top", spool, *SOON)
    screen.until(has("> failed", "new"))
    screen.press(DOWN + ENTER)
    screen.until(has("→  new", "> letter"))
    screen.press(ENTER)
    screen.until(has("metadata  13 B"))
    (spool / "new/letter").unlink()
    screen.until(has("entry letter has gone"))
    shutil.rmtree(spool / "new")
    screen.until(has("queue new has gone", "QUEUE▲"))
    screen.press("q")
    assert screen.end() == 0


def test_it_writes_nothing(  # noqa: PLR0913, PLR0917  # fixtures
    full_screen, spool, snapshot, put, aside, dead
):
    """What lies in the spool is the same to the time stamp, also once the monitor has looked; nothing is recovered."""
    put("letter")
    before = snapshot(spool)
    screen = full_screen("top", spool, *SOON, "--check-every", "0.2")
    screen.until(has("set aside in quarantine", "its owner is dead"))
    screen.press(ENTER)
    screen.until(has("→  failed"))
    screen.press(ESCAPE + "\t")
    screen.until(has("> dead"))
    screen.press(ENTER)
    screen.until(has("checked out"))
    screen.press("q")
    assert screen.end() == 0
    assert snapshot(spool) == before


def test_looks_lock_nothing(spool, put, dead, aside, monkeypatch):
    """Neither queues nor check-outs nor what a person looks into; in this process, where a lock would be seen."""
    put("letter")
    monkeypatch.setattr(fcntl, "flock", None)
    looker = Looker(spool)
    assert {found.queue: found.total for found in looker.look().queues} == {"failed": 0, "retry": 1, "send": 1}
    assert [entry.name for entry in looker.listing("send").entries] == ["broken", "letter"]
    assert looker.details("retry", "dead").state is State.CHECKED_OUT
    assert looker.details("retry", "letter").queue == "send"
    assert looker.details("send", "nowhere") is None


def test_an_entry_without_a_living_owner_is_a_problem_until_it_is_back(
    multispool, full_screen, spool, dead, locks_are_shown
):
    """It starts when that is seen twice, and ends when a reader has brought the entry back."""
    if not locks_are_shown:
        pytest.skip("the kernel does not show who holds locks on this file system")
    screen = full_screen("top", spool, *SOON)
    screen.until(has("retry/dead: ", "● for"))
    multispool.done("recover", spool)
    screen.until(has("ended", "retry/dead: ", "CHECKED OUT: nothing"))
    screen.press("q")
    assert screen.end() == 0


def test_what_the_monitor_finds_is_shown_as_it_starts_and_as_it_ends(full_screen, spool, put):
    """Data that is missing is beyond what a look at names can tell."""
    put("letter")
    (spool / ".data/letter").rename(spool / "kept")
    screen = full_screen("top", spool, *SOON, "--check-every", "0.2")
    screen.until(has("● for", "has lost its data"))
    (spool / "kept").rename(spool / ".data/letter")
    screen.until(has("○ ended", "has lost its data"))
    screen.press("q")
    assert screen.end() == 0


@pytest.mark.parametrize(("key", "question"), [("r", "retry broken of send?"), ("d", "drop broken of send?")])
def test_an_entry_in_quarantine_is_retried_or_dropped_after_a_yes(  # noqa: PLR0913, PLR0917  # fixtures
    full_screen, spool, put, aside, key, question
):
    """It is back in its queue or gone with its data, and nothing happens without the yes."""
    put("letter")
    screen = full_screen("top", spool, *SOON)
    screen.until(has("IN QUARANTINE"))
    screen.press("\t")
    screen.until(has("> broken"))
    screen.press(key)
    screen.until(has(question))
    screen.press("n")
    screen.until(has("nothing was changed"))
    assert (spool / ".quarantine/send/broken").exists()
    screen.press(ENTER)
    screen.until(has("reason    JSON is malformed"))
    screen.press(key)
    screen.until(has(question))
    screen.press("y")
    screen.until(has("broken: is back in send" if key == "r" else "broken: was dropped"))
    screen.until(lambda shown: "IN QUARANTINE" not in shown and "PROBLEMS" in shown)
    assert not (spool / ".quarantine/send/broken").exists()
    assert (spool / "send/broken").exists() == (spool / ".data/broken").exists() == (key == "r")
    screen.press("q")
    assert screen.end() == 0


def test_paused_it_does_not_look_until_it_is_told_to(full_screen, spool, put):
    """`l` looks once, and `p` goes on."""
    screen = full_screen("top", spool, *SOON)
    screen.until(has("> failed"))
    screen.press("p")
    screen.until(has("PAUSED"))
    (spool / "late").mkdir()
    screen.press("?")
    assert "late" not in screen.until(has("asks first"))
    screen.press("?l")
    screen.until(has("late", "PAUSED"))
    (spool / "later").mkdir()
    screen.press("p")
    screen.until(has("later", "a look every"))
    screen.press("q")
    assert screen.end() == 0


def test_it_follows_the_size_of_the_window(full_screen, spool, put):
    """Drawn anew at once, from 200 columns to fewer than it can use."""
    put("one")
    screen = full_screen("top", spool, columns=200, lines=50)
    screen.until(has("PROBLEMS: none", "q quit"))
    for columns, lines in ((80, 24), (40, 10), (120, 30)):
        screen.resize(columns, lines)
        shown = screen.until(has("multispool top", "> failed", "quit" if columns > 40 else "tab move")).splitlines()
        assert len(shown) == lines
        assert max(map(len, shown)) <= columns
    screen.resize(12, 4)
    screen.until(has("window too"))
    screen.press("q")
    assert screen.end() == 0


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda screen: screen.press("q"), 0),
        (lambda screen: screen.press("\x04"), 0),
        (lambda screen: screen.press("\x03"), 130),
        (lambda screen: screen.process.send_signal(signal.SIGTERM), 143),
        (lambda screen: screen.process.send_signal(signal.SIGHUP), 129),
    ],
    ids=["q", "ctrl-d", "ctrl-c", "SIGTERM", "SIGHUP"],
)
def test_the_terminal_is_left_as_it_was_found(full_screen, spool, end, code):
    """The cursor, the screen below, and how keys are read, whatever ended it."""
    screen = full_screen("top", spool, *SOON)
    screen.until(has("> failed"))
    assert screen.picture.modes == {CURSOR_SHOWN: False, WRAPPING: False, ALTERNATE: True}
    assert screen.modes() != screen.modes_before
    end(screen)
    assert screen.end() == code
    assert screen.picture.modes == AS_FOUND
    assert screen.modes() == screen.modes_before


def test_the_terminal_is_given_back_while_it_is_suspended(full_screen, spool):
    """Ctrl-Z, and what `fg` does then."""
    screen = full_screen("top", spool, *SOON)
    screen.until(has("> failed"))
    screen.press("\x1a")
    screen.until(lambda _shown: screen.picture.modes == AS_FOUND)
    assert os.WIFSTOPPED(os.waitpid(screen.process.pid, os.WUNTRACED)[1])
    assert screen.modes() == screen.modes_before
    screen.picture.resize(80, 24)
    screen.process.send_signal(signal.SIGCONT)
    screen.until(has("> failed"))
    assert screen.picture.modes[ALTERNATE]
    screen.press("q")
    assert screen.end() == 0
    assert screen.modes() == screen.modes_before


def test_a_window_that_is_closed_ends_it(full_screen, spool):
    """Nothing is left behind that watches for nobody."""
    screen = full_screen("top", spool, *SOON)
    screen.until(has("> failed"))
    assert screen.hang_up() == 129


def test_without_colours_everything_is_there(full_screen, spool, put):
    """Under `NO_COLOR`, the selection has a mark, and no colour is written."""
    put("one")
    screen = full_screen("top", spool, *SOON, NO_COLOR="1")
    screen.until(has("> failed", "LATELY"))
    screen.press("q")
    assert screen.end() == 0
    colours = {part for style in screen.picture.styles for part in style.split(";")} - {"", "39", "49"}
    assert colours <= {"0", "1", "2", "4", "7"}


@pytest.mark.program
def test_a_terminal_without_unicode_gets_ascii(full_screen, spool):
    """Bars, arrows and marks have their like there."""
    screen = full_screen("top", spool, *SOON, anew=True, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    shown = screen.until(has("> failed", "QUEUE^", "_", "^v tab move"))
    assert shown.isascii()
    screen.press("q")
    assert screen.end() == 0


REPLACED = "another spool has taken the place"


@pytest.mark.parametrize("lost", [".", ".data"])
def test_a_spool_that_goes_and_comes_back_is_waited_for(full_screen, spool, lost):
    """What was seen last stays on the screen, which says that the spool is gone; nothing is said when it is back."""
    screen = full_screen("top", spool, *SOON)
    screen.until(has("> failed"))
    (spool / lost).rename(spool.with_name("elsewhere"))
    screen.until(has("cannot look: the spool is gone: ", "> failed"))
    spool.with_name("elsewhere").rename(spool / lost)
    assert REPLACED not in screen.until(lacks("cannot look:"))
    screen.press("q")
    assert screen.end() == 0


def test_a_spool_that_is_replaced_is_said_to_be_another_once(full_screen, spool):
    """It is followed, and the last line says why the figures jump; a key takes that line away for good."""
    other = make_store(spool.with_name("other"))
    enqueue(other, "send", "new")
    other.close()
    screen = full_screen("top", spool, *SOON)
    shown = screen.until(has("> failed"))
    assert REPLACED not in shown
    spool.rename(spool.with_name("elsewhere"))
    spool.with_name("other").rename(spool)
    screen.until(has(REPLACED, "1 available"))
    screen.press("2")
    screen.until(lacks(REPLACED))
    (spool / "later").mkdir()
    assert REPLACED not in screen.until(has("  later"))
    screen.press("q")
    assert screen.end() == 0


@pytest.mark.parametrize("key", [ENTER, DOWN * 9 + ENTER], ids=["into a queue", "into an entry"])
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda spool: spool.chmod(0o777), "can be written by everybody"),
        (lambda spool: (spool / ".spool.json").write_text("{spoilt"), "that this version cannot use (.spool.json: "),
        (lambda spool: spool.rename(spool.with_name("elsewhere")), "there is no such directory"),
    ],
    ids=["written by everybody", "spoilt", "gone"],
)
def test_a_spool_that_cannot_be_looked_at_any_more_does_not_end_it(  # noqa: PLR0913, PLR0917  # fixtures
    full_screen, spool, aside, harm, told, key
):
    """What a person asks for is answered with the reason, and the keys go on working."""
    screen = full_screen("top", spool, *SOON, "--check-every", "0", columns=250)
    screen.until(has("> failed", "IN QUARANTINE"))
    harm(spool)
    screen.until(has("cannot look:"))
    screen.press("\t" * (len(key) > 1) + key)
    screen.until(lambda shown: told in shown.splitlines()[-1])
    screen.press("h")
    screen.until(has("asks first"))
    screen.press("q")
    assert screen.end() == 0


def test_a_queue_of_many_entries_is_counted_sampled_and_said_to_be_estimated(full_screen, spool):
    """More names than are kept, or looked at one by one, are still counted exactly."""
    for number in range(40_000):
        os.close(os.open(spool / f"send/n{number:06}", os.O_CREAT | os.O_WRONLY, 0o600))
    screen = full_screen("top", spool, *SOON)
    screen.until(has("40,000", "~"))
    store = make_store(spool)
    enqueue(store, "send", "new")
    store.close()
    shown = screen.until(has("40,001"))
    assert [word[0] for word in row(shown, "send")[1:5]] == ["4", "~", "0", "~"]
    screen.press(DOWN * 2 + ENTER)
    screen.until(has("→  send", "n000000", "of 40,001"))
    screen.press("q")
    assert screen.end() == 0


@pytest.mark.parametrize("every", ["0", "0.05", "soon"])
def test_how_often_to_look_must_make_sense(multispool, spool, every):
    """Wrong usage is one line and exit code 2."""
    refused = multispool("top", spool, "--every", every)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1


def test_without_a_terminal_it_says_what_to_use_instead(multispool, spool):
    """It never writes escape sequences into a file."""
    refused = multispool("top", spool)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "multispool: top needs a terminal; without one, use `multispool ls`, or `multispool stats`\n"
    )


@pytest.mark.parametrize("kind", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_be_drawn_on_is_refused(full_screen, spool, kind):
    """Nothing is drawn."""
    screen = full_screen("top", spool, TERM=kind)
    screen.picture.modes[ALTERNATE] = False
    assert screen.end() == 2
    assert screen.picture.styles == set()
    assert screen.modes() == screen.modes_before


def test_retrying_and_dropping_run_the_commands_for_that(spool):
    """The name cannot be taken for an option."""
    assert command(str(spool), Action("drop", "send", "--all")) == [
        *(sys.executable, "-m", "trio_multispool", "quarantine", "drop"),
        *(str(spool), "--", "--all"),
    ]


def test_how_far_an_owner_says_that_it_is_is_seen_and_goes_with_the_check_out(spool, put):
    """In the look, and in the details."""
    put("letter")
    store = make_store(spool)
    claimed = claim(store, "send", "letter")
    store.annotate(claimed, PROGRESS, encode_progress(0.4, "converting", 0.0))
    looker = Looker(spool)
    assert [held.progress for held in looker.look().held] == ["40 %, converting"]
    assert ("progress", "40 %, converting") in looker.details("send", "letter").facts
    release(store, claimed)
    assert looker.look().held == ()
    assert "progress" not in dict(looker.details("send", "letter").facts)
    store.close()


def test_what_was_asked_to_be_cancelled_is_seen_before_its_progress(spool, put):
    """The details say when and why; a request about another entry of that name is none."""
    put("letter")
    put("other")
    store = make_store(spool)
    claimed, other = claim(store, "send", "letter"), claim(store, "send", "other")
    store.ask_to_cancel("send", "letter", CancelRequest(0.0, "no longer"))
    (spool / ".cancel/other").write_bytes((spool / ".cancel/letter").read_bytes())
    os.utime(spool / ".registry/other", (1, 1))
    looker = Looker(spool)
    assert {held.name: held.progress for held in looker.look().held} == {"letter": "cancel asked", "other": ""}
    store.annotate(claimed, PROGRESS, encode_progress(0.4, "converting", 0.0))
    assert "cancel asked, 40 %, converting" in [held.progress for held in looker.look().held]
    [told] = [fact for label, fact in looker.details("send", "letter").facts if label == "cancel"]
    assert told.startswith("asked 1970-01-01 00:00:00 UTC (")
    assert told.endswith(" ago): no longer")
    release(store, claimed)
    release(store, other)
    store.close()


def test_what_waits_is_counted_and_known_by_name(multispool, spool, put):
    """So it is not taken for gone while it waits, nor for new when it is due."""
    put("due")
    multispool.done("put", spool, "send", os.devnull, "--name", "later", "--delay", "1d")
    (seen,) = [each for each in Looker(spool).look().queues if each.queue == "send"]
    assert (seen.available, seen.waiting, seen.sample.names) == (1, 1, {"due", "later"})
