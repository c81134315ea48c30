"""`multispool ls`, `show` and `cat`: what they say, and that they only look."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess

import pytest

from helpers.spools import state_of
from helpers.stores import claim, make_store, release
from trio_multispool.clock import wall_clock
from trio_multispool.errors import NotARegularFile
from trio_multispool.looks.directory import Looker
from trio_multispool.model.notes import PROGRESS, encode_progress


def without_times(value):
    """Return a JSON document without what depends on the clock, having checked that it is there."""
    if isinstance(value, list):
        return [without_times(item) for item in value]
    if not isinstance(value, dict):
        return value
    for key in ("age", "oldest_age"):
        assert value.get(key) is None or 0 <= value[key] < 3600
    return {key: without_times(item) for key, item in value.items() if not key.endswith(("age", "_at"))}


def set_aside(spool, name, reason):
    """Do by hand what the library does with an entry whose metadata cannot be decoded."""
    for directory in (".quarantine", ".quarantine/send", ".quarantine/.reasons"):
        (spool / directory).mkdir(exist_ok=True)
    (spool / "send" / name).rename(spool / ".quarantine/send" / name)
    (spool / ".quarantine/.reasons" / name).write_text(reason)
    return name


def age(path, seconds):
    """Make a file look older than it is."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_ls_counts_by_queue_and_tells_the_oldest(multispool, spool, put):
    """Each queue on disk has a line; the columns line up, and nothing is cut off."""
    put("one")
    put("two")
    age(spool / "send/one", 3 * 3600 + 60)
    age(spool / "send/two", 2 * 86400)
    assert multispool.done("ls", spool) == (
        "QUEUE   AVAILABLE  OLDEST  CHECKED OUT  BY\n"
        "failed          0       -            0  -\n"
        "retry           0       -            0  -\n"
        "send            2      2d            0  -\n"
    )


def test_ls_shows_queues_that_no_program_here_knows_of(multispool, spool):
    """Any directory that can be a queue is one, also where its name is no Python name."""
    multispool.done("create", spool, "mro", "name", "zwölf jahre", "9", "__init__")
    found = json.loads(multispool.done("ls", spool, "--json"))
    names = [queue["queue"] for queue in found["queues"]]
    assert names == ["9", "__init__", "failed", "mro", "name", "retry", "send", "zwölf jahre"]
    for name in ("mro", "name", "zwölf jahre", "__init__"):
        made = multispool.done("put", spool, name, "-").strip()
        multispool.done("mv", spool, made, "9")
        multispool.done("rm", spool, made)


def test_ls_long_lists_entries_and_names_are_never_cut_off(multispool, spool, put):
    """Without a terminal a table is as wide as its contents."""
    name = put("n" * 200)
    put("b", queue="failed")
    assert multispool.done("ls", spool, "send", "--long").splitlines()[1].split()[:5] == [
        name,
        "send",
        "available",
        "-",
        "13",
    ]
    lines = multispool.done("ls", spool, "-l").splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "b", name]


def test_ls_json_is_a_stable_document(multispool, spool, put, gate, owner_of):
    """A script finds counts, owners and entries under fixed keys."""
    put("a")
    put("b")
    worker = multispool.start("work", spool, "send", "--", *gate.command())
    gate.wait_begun()
    owner = owner_of(worker)
    found = without_times(json.loads(multispool.done("ls", spool, "send", "--long", "--json")))
    assert found == {
        "spool": str(spool),
        "adopted": True,
        "queues": [
            {
                "queue": "send",
                "available": 1,
                "waiting": 0,
                "checked_out": 1,
                "owners": [{"owner": owner, "entries": 1}],
                "quarantined": 0,
                "pause": None,
            }
        ],
        "entries": [
            {
                "name": "a",
                "queue": "send",
                "state": "checked out",
                "owner": owner,
                "metadata_size": 13,
                "progress": None,
                "cancellation": None,
            },
            {
                "name": "b",
                "queue": "send",
                "state": "available",
                "owner": None,
                "metadata_size": 13,
                "progress": None,
                "cancellation": None,
            },
        ],
    }
    if owner is not None:
        told = f"{owner['command']}[{worker.pid}]"
        assert multispool.done("ls", spool).splitlines()[-1].split()[-1] == told
        assert f"by        {told}\n" in multispool.done("show", spool, "a")


def test_ls_does_not_know_the_owner_of_what_a_dead_process_had(multispool, spool, dead):
    """An entry whose owner died is shown as checked out, by somebody unknown, until a reader brings it back."""
    retry = multispool.done("ls", spool, "retry").splitlines()[1].split()
    assert retry == ["retry", "0", "-", "1", "unknown"]


def test_ls_says_that_a_spool_is_not_adopted(multispool, spool):
    """The table stays clean for a pipe; the note is on standard error."""
    (spool / ".spool.json").unlink()
    found = multispool("ls", spool)
    assert found.returncode == 0
    assert found.stderr == (
        f"multispool: note: '{spool}' is not adopted (it has no .spool.json): nothing comes back from dead processes; "
        "see multispool adopt --help\n"
    )
    assert "adopted" not in found.stdout
    assert json.loads(multispool.done("ls", spool, "--json"))["adopted"] is False


@pytest.mark.parametrize("adopted", [True, False])
def test_looking_changes_nothing(multispool, spool, put, dead, snapshot, adopted):  # noqa: PLR0913, PLR0917  # fixtures
    """No file or directory of the spool is made, changed, locked or touched, also where there is much to repair."""
    put("one")
    put("odd")
    set_aside(spool, "odd", "nobody knows")
    (spool / ".tmp/left-over").touch()
    (spool / ".registry/left-over").touch()
    if not adopted:
        (spool / ".spool.json").unlink()
    before = snapshot(spool)
    for arguments in (["ls"], ["ls", "-l"], ["ls", "--json"], ["ls", "send"], ["show", "one"], ["cat", "one"]):
        assert multispool(arguments[0], spool, *arguments[1:]).returncode == 0
    for name in (dead, "odd"):
        multispool.done("show", spool, name)
        multispool.done("show", spool, name, "--json")
        multispool.done("cat", spool, name)
    assert snapshot(spool) == before


def test_show_tells_everything_about_an_entry(multispool, spool, put):
    """Where it is, how old, its metadata over several lines, and where its data lies."""
    put("one", data="x" * 2000, meta='{"to":"anne","n":0.10}')
    lines = multispool.done("show", spool, "one").splitlines()
    modified = lines.pop(3)
    assert modified.startswith("modified  20")
    assert modified.endswith(" ago)")
    assert lines == [
        "name      one",
        "queue     send",
        "state     available",
        "data      2.0 KiB",
        f"path      {spool}/.data/one",
        "metadata  22 B",
        "{",
        '  "to": "anne",',
        '  "n": 0.10',
        "}",
    ]


def test_show_json_gives_metadata_as_a_value_and_exactly(multispool, spool, put):
    """A script gets the value if it is JSON, and the very bytes in any case."""
    put("one", meta='{"to": "anne"}')
    assert without_times(json.loads(multispool.done("show", spool, "one", "--json"))) == {
        "name": "one",
        "queue": "send",
        "state": "available",
        "owner": None,
        "metadata_size": 14,
        "progress": None,
        "cancellation": None,
        "metadata": {"to": "anne"},
        "metadata_base64": base64.b64encode(b'{"to": "anne"}').decode(),
        "data_size": 5,
        "data_path": f"{spool}/.data/one",
        "quarantine_reason": None,
        "history": None,
    }
    (spool / "send/one").write_bytes(b"\xff\x00 not JSON")
    found = json.loads(multispool.done("show", spool, "one", "--json"))
    assert found["metadata"] is None
    assert base64.b64decode(found["metadata_base64"]) == b"\xff\x00 not JSON"


def test_show_and_cat_find_an_entry_in_quarantine(multispool, spool, put):
    """What was set aside is shown with its reason, and is counted by `ls`."""
    put("odd", data="precious")
    set_aside(spool, "odd", "the metadata cannot be decoded\n")
    found = multispool.done("show", spool, "odd")
    assert "state     quarantined\n" in found
    assert "reason    the metadata cannot be decoded\n" in found
    assert json.loads(multispool.done("show", spool, "odd", "--json"))["quarantine_reason"] == (
        "the metadata cannot be decoded"
    )
    assert multispool.done("cat", spool, "odd") == "precious"
    assert multispool.done("ls", spool).splitlines()[0].split()[-1] == "QUARANTINED"
    assert multispool.done("ls", spool, "send").splitlines()[1].split()[-1] == "1"


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_what_is_no_file_in_another_queue_hides_no_entry_of_its_name(multispool, spool, put, kind):
    """The entry is found where it is, also by `top`; what is no file is told if there is no such entry anywhere."""
    put("one", queue="send")
    intruder = spool / "failed/one"
    intruder.mkdir() if kind == "directory" else intruder.symlink_to("/etc/hostname")
    assert json.loads(multispool.done("show", spool, "one", "--json"))["queue"] == "send"
    assert Looker(spool).details("failed", "one").queue == "send"
    multispool.done("mv", spool, "one", "retry")
    assert state_of(spool).names("retry") == ["one"]
    multispool.done("rm", spool, "one")
    assert state_of(spool).data == {}
    told = multispool.here("show", spool, "one")
    assert (told.returncode, told.stderr) == (1, f"multispool: {NotARegularFile(str(intruder))}\n")
    with pytest.raises(NotARegularFile):
        Looker(spool).details("failed", "one")


def test_show_writes_metadata_as_it_is_into_a_pipe_and_safely_to_a_terminal(multispool, spool, put):
    """What a terminal would obey is shown to a person as an escape; a program gets the bytes."""
    put("one")
    (spool / "send/one").write_bytes(b"red \x1b[31m\xc2\x9b\xe2\x80\xae\xff\n")
    done = multispool("show", spool, "one", text=False)
    assert done.stdout.endswith(b"red \x1b[31m\xc2\x9b\xe2\x80\xae\xff\n")
    assert (done.returncode, done.stderr) == (0, b"")
    code, shown = multispool.on_terminal("show", "spool", "one")
    assert code == 0
    assert r"red \x1b[31m\x9b\u202e\xff" in shown
    assert "\x1b[31m" not in shown


def test_cat_writes_data_as_it_is(multispool, spool, tmp_path):
    """Every byte, and none more, also of data that is larger than any buffer."""
    data = bytes(range(256)) * 20_000
    (tmp_path / "data").write_bytes(data)
    name = multispool.done("put", spool, "send", "data").strip()
    found = multispool("cat", spool, name, text=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, data, b"")


def test_cat_of_an_entry_whose_data_are_gone_says_so(multispool, spool, put):
    """Not that there is no such entry."""
    put("one", queue="send")
    (spool / ".data" / "one").unlink()
    found = multispool.here("cat", spool, "one")
    told = "multispool: entry 'one' of queue 'send' has lost its data; see multispool fsck\n"
    assert (found.returncode, found.stderr) == (1, told)


@pytest.mark.parametrize("command", ["show", "cat", "rm", "cancel"])
def test_an_entry_that_does_not_exist_is_not_found(multispool, spool, command):
    """Exit code 3, and one line that names it."""
    found = multispool(command, spool, "nosuch")
    assert (found.returncode, found.stdout) == (3, "")
    assert found.stderr == f"multispool: there is no entry 'nosuch' in '{spool}'\n"


@pytest.mark.parametrize("name", ["../send/one", ".spool.json", "", "x" * 201])
@pytest.mark.parametrize("command", ["show", "cat", "rm", "cancel"])
def test_a_name_that_cannot_be_is_wrong_usage(multispool, spool, put, command, name):
    """No name leads out of the spool."""
    put("one")
    found = multispool(command, spool, name)
    assert found.returncode == 2
    assert "cannot be a name" in found.stderr
    assert found.stdout == ""


def test_ls_of_a_queue_that_does_not_exist_names_those_that_do(multispool, spool):
    """Exit code 3."""
    found = multispool("ls", spool, "nosuch")
    assert found.returncode == 3
    assert found.stderr == f"multispool: there is no queue 'nosuch' in '{spool}'; it has: failed, retry, send\n"


def test_a_closed_pipe_ends_it_quietly(multispool, spool, put):
    """`multispool ls | head -0`: not a word, and the exit code of a broken pipe."""
    put("one")
    for arguments in (
        ["ls", spool],
        ["cat", spool, "one"],
        ["show", spool, "one", "--json"],
        ["ls", "--help"],
        ["--help"],
    ):
        reading, writing = os.pipe()
        os.close(reading)
        ended = multispool(*arguments, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_output_that_cannot_be_written_is_a_failure(multispool, spool, put):
    """A full disk behind `>` must not look like success."""
    put("one")
    for command in (["ls", spool], ["cat", spool, "one"], ["show", spool, "one"]):
        with open("/dev/full", "w") as full:
            ended = multispool(*command, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert ended.returncode == 1
        assert ended.stderr == "multispool: cannot write standard output: No space left on device\n"


@pytest.mark.program
def test_names_are_written_whatever_the_locale_can_show(multispool, spool, put):
    """A name that the terminal's encoding does not have is shown as escapes; JSON is UTF-8 always."""
    name = put("größe")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    assert r"gr\xf6\xdfe  send   available" in multispool.anew("ls", spool, "--long", env=environment).stdout
    found = multispool.anew("ls", spool, "--long", "--json", env=environment, text=False)
    assert json.loads(found.stdout.decode())["entries"][0]["name"] == name


def test_tables_have_colours_on_a_terminal_only(multispool, spool, put):
    """A person sees a header that stands out; a program, or a file, no escape at all."""
    put("one")
    code, shown = multispool.on_terminal("ls", "spool")
    assert code == 0
    assert "\x1b[1mQUEUE" in shown
    environment = {**os.environ, "FORCE_COLOR": "1"}
    assert "\x1b" not in multispool.done("ls", spool, env=environment)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_narrow_terminal_folds_names_and_never_cuts_them_off(multispool, spool, put, columns):
    """Everything is there to be copied, however narrow the window."""
    name = put("".join(chr(ord("a") + number % 26) for number in range(150)))
    code, shown = multispool.on_terminal("ls", "spool", "--long", columns=columns)
    assert code == 0
    assert "…" not in shown
    letters = "".join(line[: line.find(" ")] if " " in line else line for line in shown.split("\r\n")[1:])
    assert name in letters.replace("\x1b[0m", "")


def test_how_far_an_owner_is_can_be_seen(multispool, spool, put):
    """By `ls --long`, which has a column for it then, and by `show`; for scripts, as a number and a message."""
    put("one")
    put("two")
    store = make_store(spool)
    claimed = claim(store, "send", "one")
    assert "PROGRESS" not in multispool.done("ls", spool, "send", "--long")
    store.annotate(claimed, PROGRESS, encode_progress(0.4, "converting", wall_clock()))
    header, one, two = multispool.done("ls", spool, "send", "--long").splitlines()
    assert header.split()[-1] == "PROGRESS"
    assert one.endswith("40 %, converting")
    assert two.split()[-1] == "-"
    assert "progress  40 %, converting\n" in multispool.done("show", spool, "one")
    found = json.loads(multispool.done("show", spool, "one", "--json"))
    assert found["progress"] == {"done": 0.4, "message": "converting"}
    release(store, claimed)
    assert "progress" not in multispool.done("show", spool, "one")
    store.close()


@pytest.mark.parametrize("command", ["ls", "stats"])
def test_a_terminal_too_narrow_for_the_numbers_misses_no_column(multispool, spool, command):
    """Lines are longer than it is wide then; every queue has its name."""
    code, shown = multispool.on_terminal(command, "spool", columns=30)
    assert code == 0
    assert [line.split()[0] for line in shown.splitlines()[:4]] == ["QUEUE", "failed", "retry", "send"]


@pytest.mark.parametrize("command", ["show", "cat"])
def test_a_queue_that_is_taken_for_an_entry_is_said_to_be_one(multispool, spool, command):
    """With the command that shows it."""
    refused = multispool.here(command, spool, "send")
    assert refused.returncode == 3
    assert (
        refused.stderr
        == f"multispool: there is no entry 'send' in '{spool}'; it is a queue, which `multispool ls` shows\n"
    )
