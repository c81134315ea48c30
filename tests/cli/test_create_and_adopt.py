"""`multispool create` and `multispool adopt`."""

from __future__ import annotations

import json
import stat

import pytest


def test_create_makes_a_spool_with_its_queues(multispool, tmp_path):
    """The directory is an adopted spool with exactly these queues, for its owner alone."""
    assert (
        multispool.done("create", "var/mail", "send", "failed") == f"{tmp_path}/var/mail created, with send, failed\n"
    )
    made = {str(path.relative_to(tmp_path / "var/mail")) for path in (tmp_path / "var/mail").rglob("*")}
    ours = {".spool.json", ".registry", ".tmp", ".data"}
    assert made == ours | {"send", "send/.checkout", "failed", "failed/.checkout"}
    assert stat.S_IMODE((tmp_path / "var/mail").stat().st_mode) == 0o700


def test_create_makes_a_spool_for_programs_that_take_no_locks(multispool, tmp_path):
    """Without `.spool.json`, until it is adopted; it may be repeated, but what is adopted stays so."""
    assert "created" in multispool.done("create", "mail", "send", "--not-adopted")
    assert not (tmp_path / "mail/.spool.json").exists()
    assert multispool.done("create", "mail", "more", "--not-adopted") == f"{tmp_path}/mail was there; added more\n"
    assert not (tmp_path / "mail/.spool.json").exists()
    multispool.done("adopt", "mail")
    refused = multispool.here("create", "mail", "later", "--not-adopted")
    told = "exists, and is adopted: programs that take no locks must not use it"
    assert (refused.returncode, refused.stderr) == (5, f"multispool: 'mail' {told}\n")
    assert not (tmp_path / "mail/later").exists()


def test_create_adds_queues_to_a_spool_and_may_be_repeated(multispool, spool, put):
    """Queues are added, those that exist keep their entries, and JSON tells which is which."""
    put("one")
    found = json.loads(multispool.done("create", spool, "send", "later", "--json"))
    assert found == {"spool": str(spool), "queues": ["failed", "later", "retry", "send"], "created": ["later"]}
    assert multispool.done("create", spool, "send", "later") == f"{spool} was there; nothing to add\n"
    assert multispool.done("create", spool, "more") == f"{spool} was there; added more\n"
    assert (spool / "send/one").exists()


def test_create_sets_the_mode_of_a_new_spool_whatever_the_umask(multispool, tmp_path):
    """A mode that is asked for is the mode that is there."""
    multispool.done("create", "shared", "todo", "--mode", "770", umask=0o077)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o770
    assert stat.S_IMODE((tmp_path / "shared/todo").stat().st_mode) == 0o770
    multispool.done("create", "shared", "todo", "--mode", "770")
    refused = multispool.here("create", "shared", "todo", "--mode", "750")
    assert refused.stderr == "multispool: 'shared' exists with mode 770; change it with chmod\n"
    assert refused.returncode == 5


@pytest.mark.parametrize("mode", ["777", "772", "99", "7", "1770", "abc", "-770", "070"])
def test_create_refuses_a_mode_that_cannot_be(multispool, tmp_path, mode):
    """A mode that is unsafe, or no mode, makes nothing."""
    refused = multispool.here("create", "new", "todo", f"--mode={mode}")
    assert refused.returncode == 2
    assert refused.stderr.startswith("multispool: --mode ")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("queue", [".hidden", "a/b", "", "new\nline"])
def test_create_refuses_a_queue_that_cannot_be_a_directory(multispool, tmp_path, queue):
    """A name that cannot be makes nothing, and the message is one line whatever it holds."""
    refused = multispool.here("create", "new", "good", queue)
    assert refused.returncode == 2
    assert refused.stderr.startswith("multispool: ")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_create_leaves_a_directory_alone_that_holds_something_else(multispool, tmp_path):
    """What is not a spool, and not empty, stays as it was."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter").write_text("dear")
    refused = multispool.here("create", "home", "send")
    assert refused.returncode == 5
    assert refused.stderr == (
        f"multispool: '{tmp_path}/home' is not empty and not a spool; choose an empty or a new directory\n"
    )
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter"]


def test_adopt_declares_a_spool_ours(multispool, spool):
    """Afterwards the spool has its `.spool.json`; adopting it again changes nothing."""
    (spool / ".spool.json").unlink()
    assert multispool.done("adopt", spool) == f"{spool} is adopted\n"
    assert json.loads((spool / ".spool.json").read_text()) == {"format": 1}
    assert multispool.done("adopt", spool) == f"{spool} was adopted before\n"
    found = json.loads(multispool.done("adopt", spool, "--json"))
    assert found == {"spool": str(spool), "adopted": True, "was_adopted": True}
