"""`multispool export` and `import`: a queue as a tar stream, there and back."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile

import pytest

from helpers.spools import contents, state_of
from helpers.stores import claim, make_store, release, try_claim
from trio_multispool import Unavailable


@pytest.fixture
def archive(multispool, spool):
    """Return a function that exports a queue."""

    def export(queue="send"):
        done = multispool("export", spool, queue, text=False)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    return export


@pytest.fixture
def other(tmp_path):
    """Make a second spool, with the queue "inbox"."""
    make_store(tmp_path / "other", queues=("inbox",)).close()
    return tmp_path / "other"


def imported(multispool, other, archive, *options):
    """Import an archive."""
    found = multispool("import", other, "inbox", *options, input=archive, text=False)
    return found.returncode, found.stdout.decode(), found.stderr.decode()


def test_an_export_is_a_tar_archive_that_every_tar_reads(spool, put, archive):
    """Two regular files for each entry, in the order of names, with the metadata's time; the same twice."""
    put("b", meta='{"n":1}', data="B")
    put("a", meta="", data="")
    name = put("ü" * 100)
    os.utime(spool / "send/a", (1_000_000, 1_000_000))
    raw = archive()
    with tarfile.open(fileobj=io.BytesIO(raw)) as found:
        members = {member.name: member for member in found}
        content = {name: found.extractfile(member).read() for name, member in members.items()}
    assert content == {
        "a/metadata": b"",
        "a/data": b"",
        "b/metadata": b'{"n":1}',
        "b/data": b"B",
        f"{name}/metadata": b'{"to":"anne"}',
        f"{name}/data": b"Hello",
    }
    assert list(content) == ["a/metadata", "a/data", "b/metadata", "b/data", f"{name}/metadata", f"{name}/data"]
    assert all(member.isreg() and member.mode == 0o600 and not member.uname for member in members.values())
    assert members["a/data"].mtime == 1_000_000
    assert archive() == raw


def test_an_import_of_an_export_makes_the_same_entries(multispool, put, archive, other):
    """Metadata and data to the byte, under the same names, which are printed; small ones and large ones."""
    put("b", meta="no JSON \x00", data="B")
    put("large", data="0123456789" * 100_000)
    put("z", data="")
    raw = archive()
    assert imported(multispool, other, raw) == (0, "b\nlarge\nz\n", "")
    state = state_of(other)
    assert state.available["inbox"] == {"b": b"no JSON \x00", "large": b'{"to":"anne"}', "z": b'{"to":"anne"}'}
    assert state.data == {"b": b"B", "large": b"0123456789" * 100_000, "z": b""}
    assert state.faults() == []


def test_an_import_that_is_repeated_tells_what_is_there(multispool, put, archive, other):
    """Names that are taken are passed over, each with a line, and what is new is enqueued; exit code 4."""
    put("a")
    imported(multispool, other, archive())
    put("b")
    code, out, err = imported(multispool, other, archive())
    assert (code, out) == (4, "b\n")
    assert err == "multispool: a: an entry named 'a' already exists in this spool; not imported\n"
    assert state_of(other).faults() == []


def test_an_import_can_give_new_names(multispool, put, archive, other):
    """In the order of the old ones; `--json` tells which is which."""
    for name in ("a", "b", "c"):
        put(name, data=name)
    raw = archive()
    found = []
    for _ in range(2):
        code, out, err = imported(multispool, other, raw, "--new-names", "--json")
        assert (code, err) == (0, "")
        found += [json.loads(line) for line in out.splitlines()]
    assert [(each["queue"], each["from"]) for each in found] == [("inbox", name) for name in "abcabc"]
    names = [each["name"] for each in found]
    assert names == sorted(set(names))
    assert [state_of(other).data[name] for name in names] == [b"a", b"b", b"c"] * 2


def test_an_export_changes_nothing(multispool, spool, put, snapshot, archive):
    """No entry is moved, and no file touched: whoever is killed while exporting leaves nothing to be repaired."""
    put("a")
    before = snapshot(spool)
    archive()
    told = json.loads(multispool("export", spool, "send", "--json", text=False).stderr)
    assert told == {"queue": "send", "exported": ["a"], "checked_out": 0, "waiting": 0}
    assert snapshot(spool) == before


def test_an_entry_cannot_be_taken_while_it_is_exported(multispool, spool, put):
    """Its lock is held until the last byte of it is written, and its file stays in the queue; others are free."""
    put("a", data="0123456789" * 1_000_000)
    put("b")
    exporting = multispool.start("export", spool, "send", text=False)
    begun = exporting.stdout.read(1000)  # the pipe is full long before the entry is written
    store = make_store(spool)
    assert try_claim(store, "send", "a") is Unavailable.BUSY
    assert state_of(spool).places("a") == ["send"]
    release(store, claim(store, "send", "b"))
    exporting.kill()
    exporting.wait()
    release(store, claim(store, "send", "a"))
    store.close()
    assert begun.startswith(b"a/metadata")
    assert state_of(spool).faults() == []


def test_what_somebody_has_is_left_out_and_said(multispool, spool, put, archive):
    """Checked out: a note. Locked by somebody in its queue: exit code 4."""
    for name in ("a", "b", "c"):
        put(name)
    store = make_store(spool)
    claimed = claim(store, "send", "a")
    found = []
    store.replace_metadata(
        "send",
        "b",
        b"{}",
        durability=None,
        before_commit=lambda: found.append(multispool("export", spool, "send", text=False)),
    )
    release(store, claimed)
    store.close()
    assert found[0].returncode == 4
    with tarfile.open(fileobj=io.BytesIO(found[0].stdout)) as members:
        assert members.getnames() == ["c/metadata", "c/data"]
    busy, note = found[0].stderr.decode().splitlines()
    assert busy.startswith("multispool: entry 'b' ")
    assert busy.endswith("; not exported")
    assert note == "multispool: note: 1 entry is checked out, and not exported"


def test_an_archive_is_not_written_to_a_terminal(multispool, put):
    """Exit code 2: nobody wants to see it; with standard output in a file there is a bar, and a whole archive."""
    put("a")
    code, shown = multispool.on_terminal("export", "spool", "send")
    assert code == 2
    assert shown == "multispool: an archive is not for a terminal; redirect standard output\r\n"
    with open(multispool.directory / "archive.tar", "wb") as file:
        code, shown = multispool.on_terminal("export", "spool", "send", stdout=file)
    assert code == 0
    assert "1/1" in shown
    with tarfile.open(multispool.directory / "archive.tar") as members:
        assert members.getnames() == ["a/metadata", "a/data"]


def test_a_closed_pipe_ends_an_export_quietly(multispool, spool, put):
    """`multispool export … | head -c1`: not a word."""
    put("a", data="0123456789" * 1_000_000)
    reading, writing = os.pipe()
    os.close(reading)
    ended = multispool("export", spool, "send", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


# Archives that nobody should trust


def member(name, content=b"", kind=tarfile.REGTYPE, size=None, **more):
    """Return one member as bytes."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if size is None else size
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512)


def entry(name, metadata=b"{}", data=b"Hello"):
    """Return the two members of an entry."""
    return member(f"{name}/metadata", metadata) + member(f"{name}/data", data)


END = bytes(1024)
BEFORE, AFTER = entry("before"), entry("later")
ONLY = "only NAME/metadata and NAME/data are imported"

HOSTILE = {
    "an absolute path": (member("/etc/metadata", b"x"), f"/etc/metadata: {ONLY}"),
    "an absolute path of two parts": (member("/data", b"x"), "/data: '' cannot be a name"),
    "a path that leads up": (member("../metadata", b"x"), "../metadata: '..' cannot be a name"),
    "a path that leads far up": (member("../../send/metadata", b"x"), f"../../send/metadata: {ONLY}"),
    "a path that leads up later": (member("a/../data", b"x"), f"a/../data: {ONLY}"),
    "a name with a dot in front": (
        member(".spool.json/metadata", b"x"),
        ".spool.json/metadata: '.spool.json' cannot be a name",
    ),
    "a name that is too long": (member("n" * 201 + "/metadata", b"x"), "n" * 201 + "/metadata: 'nnn"),
    "a name with a control character": (
        member("a\x1b[31m/metadata", b"x"),
        r"a\x1b[31m/metadata: 'a\x1b[31m' cannot be a name",
    ),
    "a file of its own": (member("README", b"x"), f"README: {ONLY}"),
    "another file of an entry": (member("a/notes", b"x"), f"a/notes: {ONLY}"),
    "a symbolic link": (
        member("a/data", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "a/data: it is a symbolic link",
    ),
    "a hard link": (member("a/data", kind=tarfile.LNKTYPE, linkname="before/data"), "a/data: it is a hard link"),
    "a device": (member("a/metadata", kind=tarfile.CHRTYPE, devmajor=1, devminor=5), "a/metadata: it is a device"),
    "a FIFO": (member("a/data", kind=tarfile.FIFOTYPE), "a/data: it is a FIFO"),
    "an unknown kind": (member("a/data", kind=b"Z"), "a/data: it is not a regular file"),
    "a sparse file": (
        member("a/data", b"x", pax_headers={"GNU.sparse.major": "1"}),
        "a/data: it is not a regular file",
    ),
    "data without metadata": (member("a/data", b"x"), "a: there is no metadata before its data"),
    "metadata without data": (member("a/metadata", b"x"), "a: there is no data after its metadata"),
    "data of another entry": (
        member("a/metadata", b"x") + member("before/data", b"x"),
        "before: there is no metadata before its data",
    ),
    "metadata larger than memory should be": (
        member("a/metadata", bytes((16 << 20) + 1)) + member("a/data", b"x"),
        "a: metadata of 16777217 bytes",
    ),
    "the same entry twice": (entry("before"), "before: an entry named 'before' already exists"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_entry_is_refused_by_name_and_the_rest_is_imported(multispool, other, tmp_path, what):
    """Nothing outside the queue is made or changed, nothing is followed, and what follows is read all the same."""
    raw, told = HOSTILE[what]
    outside = {path: node for path, node in contents(tmp_path).items() if not path.startswith("other")}
    code, out, err = imported(multispool, other, BEFORE + raw + AFTER + END)
    assert out == "before\nlater\n"
    first, *more = err.splitlines()
    assert first.startswith(f"multispool: {told}")
    assert first.endswith("; not imported")
    assert len(more) == (what == "data of another entry")
    assert code == (4 if what == "the same entry twice" else 5)
    state = state_of(other)
    assert (state.names("inbox"), state.faults()) == (["before", "later"], [])
    assert {path: node for path, node in contents(tmp_path).items() if not path.startswith("other")} == outside


def test_directories_and_other_headers_are_passed_over(multispool, other, tmp_path):
    """An archive that tar itself made of a directory is imported: `./NAME/…`, long names, its directories."""
    name = "n" * 150
    for path, content in {"metadata": "{}", "data": "Hello"}.items():
        (tmp_path / "entries" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "entries" / name / path).write_text(content)
    members = ["./", f"./{name}/", f"./{name}/metadata", f"./{name}/data"]
    for form in ("gnu", "pax"):
        done = subprocess.run(
            ["tar", f"--format={form}", "-C", "entries", "--no-recursion", "-cf", "-", *members],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        code, out, err = imported(multispool, other, done.stdout, "--new-names")
        assert (code, out.count("\n"), err) == (0, 1, "")
    assert list(state_of(other).data.values()) == [b"Hello"] * 2
    assert imported(multispool, other, done.stdout)[:2] == (0, f"{name}\n")


BROKEN = {
    "nothing": (b"", "standard input is not a tar archive"),
    "no archive": (b"Dear Anne,\n" * 100, "standard input is not a tar archive: "),
    "no end": (BEFORE, "the archive is truncated"),
    "an end in a header": (BEFORE + AFTER[:100], "the archive is truncated"),
    "an end in the metadata": (BEFORE + entry("later", metadata=bytes(2000))[: 512 + 1000], "the archive is truncated"),
    "an end in the data": (BEFORE + entry("later", data=bytes(5000))[:-3000], "the archive is truncated"),
    "an end in large data": (BEFORE + entry("later", data=bytes(1 << 20))[:-3000], "the archive is truncated"),
    "an end before the data": (BEFORE + member("later/metadata"), "the archive is truncated"),
    "a size that nobody has": (
        BEFORE + member("later/metadata") + member("later/data", size=1 << 62),
        "the archive is truncated",
    ),
    "a size of less than nothing": (
        BEFORE + member("later/metadata") + member("later/data", pax_headers={"size": "-5"}),
        "standard input is damaged: a member has a negative size",
    ),
    "a header larger than memory": (
        BEFORE + member("x", kind=tarfile.XHDTYPE, size=1 << 32),
        "standard input is damaged: a header of 4294967296 bytes",
    ),
    "a name larger than memory": (
        BEFORE + member("x", kind=tarfile.GNUTYPE_LONGNAME, size=1 << 32),
        "standard input is damaged: a header of 4294967296 bytes",
    ),
    "an extended header that cannot be read": (
        BEFORE + member("x", b"99999999999999999999 path=a\n", kind=tarfile.XHDTYPE) + AFTER,
        "standard input is damaged: an extended header cannot be read",
    ),
    "garbage between two entries": (BEFORE + b"\xff" * 512 + AFTER, "standard input is damaged: "),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_archive_ends_it_and_what_came_before_stays(multispool, other, what):
    """One line, how many were imported, exit code 1; the entry that was cut off is not there, nor anything of it."""
    raw, told = BROKEN[what]
    code, out, err = imported(multispool, other, raw)
    begun = raw.startswith(BEFORE)
    counted = "1 entry was imported" if begun else "0 entries were imported"
    assert (code, out) == (1, "before\n" if begun else "")
    assert err.startswith(f"multispool: {told}")
    assert err.endswith(f"; {counted}\n")
    assert err.count("\n") == 1
    state = state_of(other)
    assert (state.entries(), state.faults()) == ({"before"} if begun else set(), [])


CUT_OFF = {
    "in the data": entry("later", data=bytes(1 << 20))[:700_000],
    "in the metadata": entry("later", metadata=bytes(1 << 20))[:700_000],
}
"""More than a pipe holds: once it is written, all that came before it has been read."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", CUT_OFF)
def test_an_import_that_is_interrupted_keeps_what_is_whole(multispool, other, number, where):
    """A signal ends it while it waits for more: what was whole is enqueued, what was begun is undone."""
    importing = multispool.start("import", other, "inbox", stdin=subprocess.PIPE, text=False)
    importing.stdin.write(BEFORE + CUT_OFF[where])
    importing.stdin.flush()
    importing.send_signal(number)
    importing.wait()
    out, err = importing.communicate()
    assert (importing.returncode, out) == (128 + number, b"before\n")
    assert err == b"multispool: interrupted; 1 entry was imported\n"
    state = state_of(other)
    assert (state.names("inbox"), state.faults()) == (["before"], [])


def test_an_import_that_is_killed_leaves_only_whole_entries(multispool, other):
    """What is in the queue is whole; the rest is collected, and the import can be done again."""
    importing = multispool.start("import", other, "inbox", stdin=subprocess.PIPE, text=False)
    later = entry("later", data=bytes(3 << 20))
    importing.stdin.write(entry("first", data=bytes(300_000)) + later[: 2 << 20])
    importing.stdin.flush()
    assert importing.stdout.readline() == b"first\n"
    importing.kill()
    importing.wait()
    importing.stdin.close()
    multispool.done("recover", other)
    state = state_of(other)
    assert (state.names("inbox"), state.faults()) == (["first"], [])
    code, out, _ = imported(multispool, other, entry("first") + later + END)
    assert (code, out) == (4, "later\n")


def test_many_small_entries_are_all_imported(multispool, other):
    """More than are enqueued together, each with what is its own."""
    raw = b"".join(entry(f"{number:03}", data=b"%d" % number) for number in range(150))
    code, out, err = imported(multispool, other, raw + END)
    assert (code, out.split(), err) == (0, [f"{number:03}" for number in range(150)], "")
    assert state_of(other).data == {f"{number:03}": b"%d" % number for number in range(150)}


@pytest.mark.program
@pytest.mark.parametrize(
    ("metadata", "data"), [(10 << 20, 1), (1, 10 << 20), (200 << 10, 200 << 10)], ids=["metadata", "data", "both"]
)
def test_an_import_holds_little_in_memory_whatever_is_large(multispool, other, metadata, data):
    """What waits to be enqueued with others is 16 MiB at most, with the metadata; one that is larger does not wait."""
    script = "import sys; from trio_multispool.cli import main; code = main(sys.argv[1:]); "
    script += "print(open('/proc/self/status').read(), file=sys.stderr); sys.exit(code)"
    used = []
    for count in (1, (120 << 20) // (metadata + data)):
        command = [sys.executable, "-c", script, "import", other, "inbox", "--new-names"]
        raw = b"".join(entry(f"{number}", bytes(metadata), bytes(data)) for number in range(count))
        done = subprocess.run(command, input=raw + END, capture_output=True, check=True)
        used.append(int(re.search(rb"VmHWM:\s*(\d+) kB", done.stderr)[1]) << 10)
        assert len(done.stdout.split()) == count
    assert used[1] - used[0] < 48 << 20


def test_an_import_into_a_queue_that_does_not_exist_reads_nothing(multispool, other):
    """Exit code 3, naming those that do."""
    refused = multispool("import", other, "nosuch", input="")
    assert refused.returncode == 3
    assert refused.stderr == f"multispool: there is no queue 'nosuch' in '{other}'; it has: inbox\n"
