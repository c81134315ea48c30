"""A queue, or an entry, that was written behind the spool's path: the command says what was probably meant."""

from __future__ import annotations

import pytest

MEANT = {
    "create spool/send": "create spool send",
    "put spool/send letter": "put spool send letter",
    "enqueue-at spool/send 2096-01-01T00:00Z letter": "enqueue-at spool send 2096-01-01T00:00Z letter",
    "ls spool/send": "ls spool send",
    "ls --long spool/send/": "ls --long spool send",
    "ls spool/send/one --json": "show spool one",
    "stats spool/send --json": "stats spool send --json",
    "show spool/send one": "show spool one",
    "show spool/send/.checkout/one": "show spool one",
    "cat spool/send/one": "cat spool one",
    "top spool/send": "top spool",
    "work spool/send -- true": "work spool send -- true",
    "work spool/send --once -- cat spool/send/one": "work spool send --once -- cat spool/send/one",
    "mv spool/send/one failed": "mv spool one failed",
    "mv spool/send one failed": "mv spool one failed",
    "mv spool/send failed --older-than 1d": "mv spool --from send failed --older-than 1d",
    "rm spool/send/one": "rm spool one",
    "rm spool/send --all": "rm spool --from send --all",
    "retry spool/failed send --all": "retry spool failed send --all",
    "expire spool/failed --max-age 1d": "expire spool failed --max-age 1d",
    "quarantine ls spool/send": "quarantine ls spool send",
    "quarantine show spool/send/one": "quarantine show spool one",
    "quarantine retry spool/send --all": "quarantine retry spool --from send --all",
    "quarantine drop spool/send --name=o*": "quarantine drop spool --from send '--name=o*'",
    "export spool/send": "export spool send",
    "import spool/send": "import spool send",
    "recover spool/send": "recover spool",
    "fsck spool/send --max-send-age 1h": "fsck spool --max-send-age 1h",
    "monitor spool/send --once": "monitor spool --once",
    "adopt spool/send": "adopt spool",
}
"""What was typed, and what is suggested."""


@pytest.mark.parametrize("typed", MEANT)
def test_a_path_into_a_spool_is_told_as_what_was_meant(multispool, spool, put, snapshot, typed):
    """One line, with the whole command as it can be typed; nothing is changed, and the exit code is as ever."""
    put("one")
    (multispool.directory / "letter").touch()
    before = snapshot(spool)
    refused = multispool.here(*typed.split())
    assert refused.stdout == ""
    assert refused.stderr.endswith(f" lies in the spool 'spool'; did you mean: multispool {MEANT[typed]}\n")
    assert refused.returncode in {2, 5}
    assert snapshot(spool) == before


def test_who_stands_in_the_queue_is_told_where_its_spool_is(multispool, spool):
    """`.` is a path into a spool, too."""
    multispool.directory = spool / "send"
    refused = multispool.here("ls", ".")
    assert refused.stderr.endswith(f"did you mean: multispool ls {spool} send\n")


@pytest.mark.parametrize(
    "typed",
    [
        "ls spool/nosuch",
        "ls nosuch/send",
        "ls plain/send",
        "ls spool/.data",
        "work spool/send/one -- true",
        "put spool send",
        "rm spool",
        "put plain send spool/send/one",
        "lss spool/send",
    ],
)
def test_nothing_is_guessed_where_nothing_is_known(multispool, spool, put, tmp_path, typed):
    """The parent must be a spool, and have that queue; and one entry is never taken for its whole queue."""
    put("one")
    (tmp_path / "plain" / "send").mkdir(parents=True)
    refused = multispool.here(*typed.split())
    assert refused.returncode in {2, 5}
    assert "lies in the spool" not in refused.stderr
