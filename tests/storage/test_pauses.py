"""Pauses of queues: what any store keeps of them, in the words of `Storage`."""

from __future__ import annotations

import pytest

from trio_multispool.model.pauses import UNREADABLE, Pause, new_pause

FOR_EVER = Pause(1.0)
A_WHILE = Pause(2.0, 3.0, "the relay is being replaced")


def test_a_pause_is_seen_by_everybody_and_the_last_one_counts(store, other):
    """Each queue has its own."""
    assert other.pauses() == {}
    store.pause("send", FOR_EVER)
    store.pause("failed", FOR_EVER)
    other.pause("send", A_WHILE)
    assert store.pauses() == other.pauses() == {"send": A_WHILE, "failed": FOR_EVER}


def test_a_queue_that_is_resumed_is_paused_no_longer(store, other):
    """Whoever does it, and however often."""
    store.resume("send")
    store.pause("send", A_WHILE)
    store.pause("failed", FOR_EVER)
    for _ in range(2):
        other.resume("send")
        assert store.pauses() == {"failed": FOR_EVER}


def test_a_pause_outlives_whoever_asked_for_it(store, open_store):
    """It is there when everybody has gone, and somebody comes again."""
    store.pause("send", A_WHILE)
    store.close()
    assert open_store().pauses() == {"send": A_WHILE}


def test_a_pause_is_no_entry_and_no_fault(store):
    """Nothing is made of it by a recovery or an examination."""
    store.pause("send", FOR_EVER)
    assert list(store.recover_all()) == []
    assert store.pauses() == {"send": FOR_EVER}
    assert not any(store.depths().values())


def test_a_pause_is_over_when_its_time_is():
    """Not before, and one without an end never."""
    assert not A_WHILE.is_over(2.9)
    assert A_WHILE.is_over(3.0)
    assert not FOR_EVER.is_over(1e12)


def test_a_reason_is_cut_and_must_be_text():
    """It is for people."""
    assert len(new_pause(0.0, None, "x" * 2000).reason) == 1000
    with pytest.raises(TypeError, match="a reason is text"):
        new_pause(0.0, 1.0, 7)


@pytest.mark.parametrize("content", [b"", b'{"since": 1.0', b"[]", b'{"since": "yesterday"}', bytes(100)])
def test_a_pause_that_cannot_be_read_pauses_without_an_end(tmp_path, content):
    """A crash may have left it half written, and somebody wanted the queue paused. It can be resumed."""
    from helpers.stores import make_store

    store = make_store(tmp_path / "spool")
    store.pause("send", A_WHILE)
    (tmp_path / "spool" / ".paused" / "send").write_bytes(content)
    assert store.pauses() == {"send": UNREADABLE}
    store.resume("send")
    assert store.pauses() == {}
    store.close()
