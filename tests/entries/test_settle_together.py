"""Claims that are settled together: each as if alone, with every directory synced once for all of them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from helpers.calls import FailingCalls
from helpers.stores import DATA, NEW, OLD, QUEUES, available, claim, enqueue, nothing, read_data, release, remove
from trio_multispool import Durability, DurabilityUnknown, OutOfSpace, OwnershipLost, StorageFailure, SyncsRefused
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import Releasing, Removing, Saving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio_multispool.storage.protocol import Storage


@pytest.fixture
def calls() -> FailingCalls:
    """Count the calls, and let some fail."""
    return FailingCalls()


@pytest.fixture
def store(tmp_path: Path, calls: FailingCalls) -> Iterator[Storage]:
    """Open a store whose calls are counted."""
    storage = DirectoryStorage.open(tmp_path / "spool", QUEUES, create=True, calls=calls)
    yield storage
    storage.close()


def claimed(store: Any, *names: str, queue: str = "send") -> list[Any]:
    """Enqueue entries of these names, and check them out."""
    for name in names:
        enqueue(store, queue, name)
    return [claim(store, queue, name) for name in names]


def saving(held: Any, queue: str, metadata: bytes | None = NEW) -> Saving[Any]:
    """Say that a claim is to be saved."""
    return Saving(held, queue, metadata, None, nothing)


def removing(held: Any) -> Removing[Any]:
    """Say that a claim is to be removed."""
    return Removing(held, None, nothing)


def synced(calls: FailingCalls) -> list[str]:
    """Return the directories that were synced, by the ends of their paths."""
    return [path.partition("/spool/")[2] for call, path in calls.made if call == "sync"]


def test_each_is_settled_as_if_it_were_alone(store: Any) -> None:
    """Saved, removed and released: each entry is where its settlement says."""
    one, two, three, four = claimed(store, "1", "2", "3", "4")
    outcomes = store.settle([saving(one, "retry"), removing(two), Releasing(three), saving(four, "send", None)])
    assert outcomes == [None, None, None, None]
    assert (store.names("send"), store.names("retry")) == (["3", "4"], ["1"])
    assert [store.read_metadata(available("retry"), "1"), store.read_metadata(available("send"), "4")] == [NEW, OLD]
    assert [held.state for held in (one, two, three, four)] == [
        State.AVAILABLE,
        State.NOTHING,
        State.AVAILABLE,
        State.AVAILABLE,
    ]
    assert not any(held.held for held in (one, two, three, four))


def test_each_directory_is_synced_once_before_the_commits_and_once_after(store: Any, calls: FailingCalls) -> None:
    """Twenty removals sync the queue once, then all are unlinked, and then what they were unlinked from is synced."""
    held = claimed(store, *(f"{number:02}" for number in range(20)))
    calls.made.clear()
    assert store.settle([removing(one) for one in held]) == [None] * 20
    assert synced(calls) == ["send", "send/.checkout"]
    steps = [(call, path.partition("/spool/")[2]) for call, path in calls.made if call in ("sync", "unlink")]
    first, second = steps.index(("sync", "send")), steps.index(("sync", "send/.checkout"))
    commits = [index for index, (call, path) in enumerate(steps) if call == "unlink" and "send/.checkout" in path]
    assert len(commits) == 20
    assert all(first < index < second for index in commits)
    data = [index for index, (call, path) in enumerate(steps) if call == "unlink" and path.startswith(".data/")]
    assert len(data) == 20
    assert all(second < index for index in data)


def test_saves_to_several_queues_sync_each_of_them_once(store: Any, calls: FailingCalls) -> None:
    """The metadata files are all begun to be written and then synced one by one, and each queue is synced once."""
    held = claimed(store, *"123456")
    calls.made.clear()
    queues = ["retry", "failed", "retry", "failed", "retry", "failed"]
    assert store.settle([saving(one, queue) for one, queue in zip(held, queues, strict=True)]) == [None] * 6
    made = [(call, path.partition("/spool/")[2]) for call, path in calls.made if call in ("write_out", "sync")]
    files = [f".tmp/{name}" for name in "123456"]
    assert made[:12] == [("write_out", file) for file in files] + [("sync", file) for file in files]
    assert made[12:] == [("sync", directory) for directory in ("send", "retry", "failed")]


def test_one_that_fails_does_not_keep_the_others(store: Any) -> None:
    """Taken away, refused at the last moment, settled before: each answers for itself."""
    one, two, three, four = claimed(store, "1", "2", "3", "4")
    [taken] = [held for held in store.claims_unsafe("send") if held.name == "1"]
    remove(store, taken, durability=None, before_commit=nothing)

    class WithdrawnError(BaseException):
        pass

    def withdraw() -> None:
        raise WithdrawnError

    outcomes = store.settle(
        [removing(one), Saving(two, "retry", NEW, None, withdraw), removing(three), saving(four, "retry")]
    )
    assert [type(outcome) for outcome in outcomes] == [OwnershipLost, WithdrawnError, type(None), type(None)]
    assert two.state is State.CHECKED_OUT
    release(store, two)
    assert (store.names("send"), store.names("retry")) == (["2"], ["4"])
    assert store.read_metadata(available("send"), "2") == OLD


def test_a_sync_that_fails_before_the_commits_leaves_all_that_needed_it_as_they_were(
    store: Any, calls: FailingCalls
) -> None:
    """Each has an error of its own, the claims are still held, and what needs no sync is settled all the same."""
    one, two, three = claimed(store, "1", "2", "3")
    with calls.failing("sync", errno.EIO, "/send", times=1):
        outcomes = store.settle([removing(one), saving(two, "retry"), Releasing(three)])
    assert [type(outcome) for outcome in outcomes] == [StorageFailure, StorageFailure, type(None)]
    assert outcomes[0] is not outcomes[1]
    assert isinstance(outcomes[1].__cause__, OSError)
    assert (one.state, two.state) == (State.CHECKED_OUT, State.CHECKED_OUT)
    assert one.held
    assert two.held
    for held in (one, two):
        release(store, held)
    assert store.names("send") == ["1", "2", "3"]
    assert store.read_metadata(available("send"), "2") == OLD


def test_a_sync_that_fails_after_the_commits_leaves_them_standing_with_unknown_durability(
    store: Any, calls: FailingCalls
) -> None:
    """Each is told with its own name, and no data is deleted that the return of its entry would need."""
    held = claimed(store, "1", "2", "3")
    with calls.failing("sync", errno.EIO, "send/.checkout", times=1):
        outcomes = store.settle([removing(one) for one in held])
    assert outcomes == [DurabilityUnknown(name, "send", committed=True) for name in "123"]
    assert store.names("send") == []
    assert [read_data(store, name) for name in "123"] == [DATA] * 3


@pytest.mark.parametrize("call", ["write_out", "sync"])
def test_a_file_that_cannot_be_synced_fails_its_own_save_only(store: Any, calls: FailingCalls, call: str) -> None:
    """Its entry keeps its old metadata and is still held; the other is saved."""
    one, two = claimed(store, "1", "2")
    with calls.failing(call, errno.ENOSPC, ".tmp/1"):
        outcomes = store.settle([saving(one, "retry"), saving(two, "retry")])
    assert [type(outcome) for outcome in outcomes] == [OutOfSpace, type(None)]
    assert one.state is State.CHECKED_OUT
    release(store, one)
    assert (store.names("send"), store.names("retry")) == (["1"], ["2"])
    assert (store.read_metadata(available("send"), "1"), store.read_metadata(available("retry"), "2")) == (OLD, NEW)


def test_after_a_failed_sync_nothing_that_is_under_way_syncs_again(store: Any, calls: FailingCalls) -> None:
    """The kernel would say that all is well: what it has dropped, it reports once."""
    [one], [two] = claimed(store, "1"), claimed(store, "2", queue="retry")
    with calls.failing("sync", errno.EIO, "/send", times=1):
        calls.made.clear()
        outcomes = store.settle([removing(one), removing(two)])
    assert [type(outcome) for outcome in outcomes] == [StorageFailure, SyncsRefused]
    assert synced(calls) == ["send"]
    assert (one.state, two.state) == (State.CHECKED_OUT, State.CHECKED_OUT)


@pytest.mark.parametrize("durability", Durability)
def test_levels_may_differ(store: Any, calls: FailingCalls, durability: Durability) -> None:
    """One that survives only processes leaves out the last sync, for itself."""
    one, two = claimed(store, "1", "2")
    calls.made.clear()
    assert store.settle([Saving(one, "retry", None, durability, nothing), saving(two, "failed", None)]) == [None, None]
    last = {Durability.POWER: ["send", "retry", "failed"], Durability.PROCESS: ["send", "failed"]}[durability]
    assert synced(calls) == last


def test_nothing_to_settle_is_nothing(store: Any, calls: FailingCalls) -> None:
    """No call is made."""
    calls.made.clear()
    assert store.settle([]) == []
    assert calls.made == []


# What dead owners left under the names


def leave(path: Path, *names: str) -> None:
    """Leave files in `.tmp`, as those do who are killed while they write."""
    for name in names:
        (path / "spool" / ".tmp" / name).touch()


def test_what_was_left_under_the_names_goes_with_them(store: Any, calls: FailingCalls, tmp_path: Path) -> None:
    """`.tmp` is listed once for all; what lies there under these names is deleted, and nothing else."""
    held = claimed(store, "a", "b", "c")
    leave(tmp_path, "a", ".data.b", ".notes.c", "somebody-else")
    calls.made.clear()
    assert store.settle([removing(one) for one in held]) == [None] * 3
    assert [path.name for path in (tmp_path / "spool" / ".tmp").iterdir()] == ["somebody-else"]
    touched = [(call, path) for call, path in calls.made if "/.tmp/" in path]
    assert sorted(path.rpartition("/")[2] for call, path in touched if call == "unlink") == [".data.b", ".notes.c", "a"]


def test_one_alone_looks_at_nothing_else(store: Any, calls: FailingCalls, tmp_path: Path) -> None:
    """Three calls are quicker than a listing."""
    [held] = claimed(store, "a")
    leave(tmp_path, ".data.a")
    calls.made.clear()
    assert store.settle([removing(held)]) == [None]
    assert list((tmp_path / "spool" / ".tmp").iterdir()) == []
    assert not [call for call, _ in calls.made if call == "scan"]


def test_a_crowded_directory_is_not_listed_to_its_end(store: Any, tmp_path: Path) -> None:
    """Everything is deleted by its name then."""
    held = claimed(store, "a", "b")
    leave(tmp_path, *(f"other-{number}" for number in range(100)), "a", ".notes.b")
    assert store.settle([removing(one) for one in held]) == [None, None]
    assert not any("other" not in path.name for path in (tmp_path / "spool" / ".tmp").iterdir())


def test_a_listing_that_fails_is_no_trouble(store: Any, calls: FailingCalls, tmp_path: Path) -> None:
    """Everything is deleted by its name."""
    held = claimed(store, "a", "b")
    leave(tmp_path, "a", ".notes.b")
    with calls.failing("scan", errno.EIO, "/.tmp"):
        assert store.settle([removing(one) for one in held]) == [None, None]
    assert list((tmp_path / "spool" / ".tmp").iterdir()) == []


def test_notes_go_too_and_are_looked_for_once_where_there_are_none(
    store: Any, calls: FailingCalls, tmp_path: Path
) -> None:
    """The directory may be made at any time: each batch looks again."""
    first, second = claimed(store, "a", "b"), claimed(store, "c", "d")
    calls.made.clear()
    assert store.settle([removing(one) for one in first]) == [None, None]
    assert [path for _, path in calls.made if path.endswith("/spool/.notes")] == [f"{tmp_path}/spool/.notes"]
    (tmp_path / "spool" / ".notes").mkdir()
    for name in ("c", "d", "other"):
        (tmp_path / "spool" / ".notes" / name).touch()
    assert store.settle([removing(one) for one in second]) == [None, None]
    assert [path.name for path in (tmp_path / "spool" / ".notes").iterdir()] == ["other"]
