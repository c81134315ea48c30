"""One file that goes bad blocks nothing: each byte of each file is spoilt, and anything is put beside entries.

Whatever lies there, nothing is raised but what is documented, and all other entries go on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.processes import run_python
from helpers.proofs import WHOLE, thinned
from helpers.spools import MAIL, START, Envelope, Mail, Wall, load_spool, put, quick_spool, state_of
from helpers.stores import enqueue, make_store
from trio_multispool import (
    DataFile,
    Err,
    NameTaken,
    Ok,
    Remove,
    Retry,
    Spool,
    UnsupportedFormat,
    Use,
    Verdict,
)
from trio_multispool.cli.histories import history_document, told_history
from trio_multispool.events import Event
from trio_multispool.looks.directory import Looker
from trio_multispool.model.attempts import ATTEMPTS, Mark, begun, encode_history, failure_of, history_in
from trio_multispool.model.attempts import failed as with_failure
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.notes import progress_in
from trio_multispool.monitor import Monitor

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED = {"type": "ValueError", "message": "it failed", "notes": ["a note"], "group": [{"type": "OSError"}]}
ATTEMPT = {"number": 1, "queue": "send", "began": 1.7e9, "host": "h", "pid": 7, "ended": 1.7e9, "failure": FAILED}
NOTE = json.dumps(
    {
        "trace": {"traceparent": "00-ab"},
        "progress": {"done": 0.5, "message": "halfway", "at": 1.8e9},
        "attempts": {"queue": "send", "spent": 1, "attempts": [ATTEMPT], "given_up": False},
    }
).encode()
KEY = b'{"remember":604800.0}\n'
REASON = b"its metadata was \xc3\xa4lter\n"
SOUND = ("a-sound", "z-sound")


def spoilt(content: bytes) -> Iterator[bytes]:
    """Yield the content with one bit of one byte flipped: one of each byte, or all of them."""
    for index, byte in enumerate(content):
        for bit in range(8) if WHOLE else (index % 8,):
            yield content[:index] + bytes([byte ^ 1 << bit]) + content[index + 1 :]


def place(file: Path, content: bytes) -> None:
    """Write a file, over what is there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def beside(path: Path, directory: str, content: bytes) -> list[str]:
    """Give each of many entries its own way of being spoilt, and return their names."""
    names = []
    for number, raw in enumerate(spoilt(content)):
        names.append(f"m{number:05}")
        place(path / directory / names[-1], raw)
    return names


def made(path: Path, *names: str) -> None:
    """Make a spool with entries whose owners died."""
    with contextlib.closing(make_store(path, durability=None)) as store:
        for name in (*SOUND, *names):
            enqueue(store, "send", name, b'{"recipient":"anne"}')
            os.rename(path / "send" / name, path / "send" / ".checkout" / name)


async def fail(metadata: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
    """Raise."""
    (await data.progress(0.5, "halfway")).ignore()
    raise ValueError(data.name)


async def work_off(spool: Spool[Any, Any, Any, Any]) -> set[str]:
    """Make dead letters of all entries, and then work off the dead letters; return their names."""
    done: set[str] = set()

    async def well(metadata: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
        done.add(data.name)
        return Remove()

    async with spool.reader(Mail.SEND) as reader:
        answer = await reader.iter_available(fail, retry=Retry(attempts=1, dead_letter=Mail.FAILED))
        assert answer == Ok(None)
    async with spool.reader(Mail.FAILED) as reader:
        assert await reader.iter_available(well, retry=Retry(dead_letter=Mail.RETRY)) == Ok(None)
    return done


@pytest.mark.proof
@pytest.mark.parametrize(("directory", "content"), [(".notes", NOTE), (".keys", KEY)])
async def test_no_bad_byte_beside_an_entry_stops_recovery_a_look_or_a_reader(tmp_path, caplog, directory, content):
    """All entries come back from their dead owners, are shown, fail, become dead letters, and are done at last.

    What cannot be read is said once.
    """
    path = tmp_path / "spool"
    names = [f"m{number:05}" for number, _ in enumerate(spoilt(content))]
    made(path, *names)
    assert beside(path, directory, content) == names
    look = Looker(path).look()
    assert [seen.held for seen in look.queues if seen.queue == "send"] == [len(names) + len(SOUND)]
    async with await load_spool(path, now=Wall()) as spool:
        problems = (await Monitor(spool).run_once()).unwrap()
        assert {problem.name for problem in problems} <= set(names)
        assert {type(problem).__name__ for problem in problems} == {"UnreadableNotes"}
        (await Monitor(spool).repair(problems, dry_run=False)).unwrap()
        (await spool.recover()).unwrap()
        assert await work_off(spool) == {*SOUND, *names}
    said = [record for record in caplog.records if record.__dict__["event"] == Event.UNREADABLE_NOTES]
    assert {record.__dict__["entry"] for record in said} >= {problem.name for problem in problems}
    if len(problems) < 1000:  # of more, it is not remembered of which it was said
        assert len(said) == len({record.__dict__["entry"] for record in said})
    state = state_of(path)
    assert (state.entries(), state.registry, state.data, state.notes) == (set(), set(), {}, {})


@pytest.mark.proof
async def test_no_bad_byte_of_a_key_lets_its_name_be_used_again(tmp_path):
    """A number that reads otherwise is a number; what cannot be read counts as remembered."""
    path = tmp_path / "spool"
    wall = Wall()
    async with await quick_spool(path, now=wall) as spool:
        for number, raw in enumerate(spoilt(KEY)):
            await put(spool, Mail.SEND, f"m{number:05}")
            place(path / ".keys" / f"m{number:05}", raw)
            os.utime(path / ".keys" / f"m{number:05}", (0, 0))  # as it is until its entry has been removed
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(_remove)).unwrap()
        wall.time += 0.001
        for number, raw in enumerate(spoilt(KEY)):
            name = f"m{number:05}"
            answer = await spool.enqueue(Mail.SEND, Envelope("a"), b"", name=Use(name))
            if not raw.startswith(b'{"remember":0'):
                assert answer == Err(NameTaken(name, finished=True)), raw


async def _remove(metadata: Envelope, data: DataFile[bytes]) -> Verdict[Mail, Envelope]:
    return Remove()


@pytest.mark.proof
async def test_no_bad_byte_of_metadata_or_of_a_reason_stops_the_others(tmp_path):
    """What cannot be decoded is set aside with its reason, or shown without; all others are worked off."""
    path = tmp_path / "spool"
    names = [f"m{number:05}" for number, _ in enumerate(spoilt(b'{"recipient":"anne"}'))]
    made(path, *names)
    assert beside(path, "send/.checkout", b'{"recipient":"anne"}') == names
    async with await load_spool(path, now=Wall()) as spool:
        done = await work_off(spool)
        aside = set(state_of(path).quarantined["send"])
        assert done | aside == {*SOUND, *names}
        assert not aside & set(SOUND)
        for name, raw in zip(sorted(aside), spoilt(REASON), strict=False):
            place(path / ".quarantine" / ".reasons" / name, raw)
    with contextlib.closing(make_store(path)) as store:
        assert all(store.quarantine_reason(name) for name in aside)


@pytest.mark.anyio
async def test_no_bad_byte_of_the_format_file_is_more_than_a_refusal(tmp_path):
    """A spool opens, or answers `UnsupportedFormat`."""
    path = tmp_path / "spool"
    async with await quick_spool(path):
        pass
    content = (path / ".spool.json").read_bytes()
    refused = 0
    for index, byte in enumerate(content):
        for bit in range(8):
            (path / ".spool.json").write_bytes(content[:index] + bytes([byte ^ 1 << bit]) + content[index + 1 :])
            answer = await Spool.load(path, MAIL)
            if isinstance(answer, Ok):
                answer.value.close()
            else:
                assert isinstance(answer.error, UnsupportedFormat)
                refused += 1
    assert refused > 7 * len(content)


BOMBS = {
    "deep": b'{"later": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a deep history": b'{"attempts": ' + b'{"attempts":[' * 50_000 + b"]}" * 50_000 + b"}",
    "a deep failure": NOTE.replace(b'"group": [', b'"group": [' + b'{"type":"x","group":[' * 1000).replace(
        b'[{"type": "OSError"}]', b"[" + b"]}" * 1000 + b"]"
    ),
    "large": b'{"later": "' + b"x" * 30_000_000 + b'"}',
    "a large number": NOTE.replace(b'"spent": 1', b'"spent": ' + b"9" * 4000),
    "a larger number": NOTE.replace(b'"spent": 1', b'"spent": ' + b"9" * 40_000),
    "a late time": NOTE.replace(b"1.8e9", b"1e300"),
    "a time that is none": NOTE.replace(b"1.7e9", b"1e999"),
    "no UTF-8": NOTE.replace(b"halfway", b"half\xff"),
    "no UTF-8 in a key": NOTE.replace(b"trace", b"tr\xffce"),
    "half a character": NOTE.replace(b"halfway", b"\\ud800"),
    "empty": b"",
    "zeros": b"\0" * 4096,
    "no object": b"[]",
}


@pytest.mark.proof
@pytest.mark.parametrize("bomb", thinned(BOMBS, 2))
def test_the_command_goes_on_whatever_lies_beside_an_entry(tmp_path, bomb):
    """`ls`, `show`, `stats`, `recover` and `fsck --repair` end in order, and the entries of the dead are back."""
    path = tmp_path / "spool"
    made(path, "aside", "out")
    place(path / ".quarantine" / "send" / "aside", b"{")
    os.unlink(path / "send" / ".checkout" / "aside")
    for name, directory in itertools.product(("aside", "out"), (".notes", ".keys", ".quarantine/.reasons")):
        place(path / directory / name, BOMBS[bomb])
    code = """
        import sys
        from trio_multispool.cli import main

        path = sys.argv[1]
        for words in ("ls P send", "show P out", "show P aside", "quarantine ls P", "stats P", "fsck P", "recover P",
            "fsck P --repair"):
            command = [path if word == "P" else word for word in words.split()]
            print("CODE", command[0], main(command))
    """
    told = [line.split()[1:] for line in run_python(code, path).stdout.splitlines() if line.startswith("CODE")]
    codes = dict(told)
    assert len(told) == 8
    assert (codes["ls"], codes["show"], codes["quarantine"], codes["stats"], codes["recover"]) == ("0",) * 5
    assert codes["fsck"] == "7", "it tells of the notes and of the key"
    assert sorted(os.listdir(path / "send")) == [".checkout", "a-sound", "out", "z-sound"]


def test_a_key_of_notes_that_cannot_be_read_stays_for_a_person_until_it_is_written_anew(tmp_path):
    """Nothing is lost by a change of another key, and `fsck` still tells of it."""
    path = tmp_path / "spool"
    made(path, "a")
    place(path / ".notes" / "a", b'{"attempts": {"queue": "send\xff"}, "progress": {"done":1,"message":"","at":1}}')
    with contextlib.closing(make_store(path)) as store:
        assert state_of(path).notes["a"] == b'{"attempts":{"queue": "send\xff"}}\n', "the progress of the dead is gone"
        assert history_in(store.notes("a")) is None
        claim = store.claim(Place("send", State.AVAILABLE), "a", before_commit=lambda: None)
        store.annotate(claim, ATTEMPTS, encode_history(begun(None, Mark("send", START, "h", 1))))
        assert history_in(store.notes("a")) is not None
        claim.abandon()


def test_notes_stay_readable_beside_what_others_wrote_there(tmp_path):
    """What this version does not know goes, if the notes would otherwise become too large to be read."""
    with contextlib.closing(make_store(tmp_path / "spool")) as store:
        enqueue(store, "send", "a")
        place(tmp_path / "spool" / ".notes" / "a", b'{"later": "' + b"x" * 4_000_000 + b'"}')
        claim = store.claim(Place("send", State.AVAILABLE), "a", before_commit=lambda: None)
        store.annotate(claim, "small", b"1")
        assert set(store.notes("a")) == {"later", "small"}
        store.annotate(claim, "large", b'"' + b"x" * 1_000_000 + b'"')
        assert set(store.notes("a")) == {"large"}
        claim.abandon()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")], ids=["directory", "FIFO", "link"]
)
async def test_what_is_no_file_beside_an_entry_stops_nobody(tmp_path, make):
    """An attempt goes unrecorded, a verdict is stored, a quarantine has no reason; and all others go on."""
    path = tmp_path / "spool"
    async with await quick_spool(path, now=Wall()) as spool:
        await put(spool, Mail.SEND, "a-sound", "bad", "m", "z-sound")
        for directory in (".notes", ".keys", ".quarantine/.reasons"):
            (path / directory).mkdir(parents=True)
            make(path / directory / "m")
            make(path / directory / "bad")
        (path / "send" / "bad").write_bytes(b"{")
        assert await work_off(spool) == {"a-sound", "m", "z-sound"}
        state = state_of(path)
        assert (state.entries(), list(state.quarantined["send"])) == ({"bad"}, ["bad"])
        for name in ("m", "bad"):
            answer = await spool.enqueue_if_absent(Mail.SEND, Envelope(name), b"", name=Use(name))
            assert answer.unwrap() is None, "it is there, or remembered"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([-1, 2**63, 1e300, "send"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FAILED, *ATTEMPT, "done", "at"]), inner)
    ),
    max_leaves=12,
)
ODD = st.sampled_from([-1, 0, 2**63, 10**30, -1e300, 1e300, "x" * 1000, None, [], {}]) | VALUES
ATTEMPTED = st.dictionaries(st.sampled_from([*ATTEMPT]), ODD, max_size=1).map(lambda odd: ATTEMPT | odd)
HISTORIES = st.fixed_dictionaries(
    {
        "queue": st.just("send"),
        "spent": st.just(1) | ODD,
        "attempts": st.lists(ATTEMPTED, min_size=1, max_size=3) | ODD,
    },
    optional={"given_up": ODD},
)
NOTES = st.dictionaries(st.sampled_from(["trace", "progress", "later"]), VALUES) | st.fixed_dictionaries(
    {"attempts": HISTORIES}, optional={"trace": VALUES}
)


@settings(
    max_examples=2000 if WHOLE else 60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.proof
@given(note=st.binary(max_size=60) | NOTES.map(lambda notes: json.dumps(notes).encode()))
def test_anything_may_lie_beside_an_entry(tmp_path_factory, note):
    """It is read, shown, counted on and written anew, and what is written can be read."""
    path = tmp_path_factory.getbasetemp() / "anything"
    with contextlib.closing(make_store(path)) as store:
        if not state_of(path).entries():
            enqueue(store, "send", "a")
        place(path / ".notes" / "a", note)
        place(path / ".keys" / "a", note)
        claim = store.claim(Place("send", State.AVAILABLE), "a", before_commit=lambda: None)
        assert isinstance(store.carrier("a"), dict)
        notes = store.notes("a")
        progress = progress_in(notes)
        assert progress is None or 0 <= progress.done <= 1
        history = history_in(notes)
        if history is not None:
            assert 0 <= history.spent < 2**53
            assert all(0 <= attempt.number < 2**53 for attempt in history.attempts)
            assert "\n".join(told_history(history, queue="send", at_work=True))
            assert json.dumps(history_document(history))
        now = begun(history, Mark("send", START, "h", 1))
        store.annotate(
            claim, ATTEMPTS, encode_history(with_failure(now, failure_of(ValueError()), at=START, next_at=None))
        )
        found = history_in(store.notes("a"))
        assert found is not None
        assert found.attempts[-1].failure is not None
        assert [item.name for item in store.inventory("send")] == ["a"]
        claim.abandon()
        assert store.recover_name("a") is not None
        assert [*store.recover_all()] == []
