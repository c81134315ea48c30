"""What a spool's path leads to while the spool is made or opened: others may put something else there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from helpers.processes import run_python
from helpers.spools import snapshot
from helpers.stores import make_store
from helpers.syscalls import HookedCalls
from trio_multispool import NotASpool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Attacker(HookedCalls):
    """Swaps a directory for a symlink as soon as it has been made."""

    def __init__(self, made: Path, victim: Path) -> None:
        """Wait for a directory of that path."""
        self._made, self._victim = made, victim

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Swap, after the call that has made it."""
        answer = perform()
        if call == "make_directory" and self._made.is_dir() and not self._made.is_symlink():
            self._made.rename(self._made.with_name("away"))
            self._made.symlink_to(self._victim)
        return answer


@pytest.mark.parametrize("swapped", ["a", "a/b", "a/b/spool"])
@pytest.mark.parametrize("entries", [(), ("file",)], ids=["an empty directory", "a full directory"])
def test_create_never_follows_a_symlink_that_is_swapped_in_for_what_it_makes(tmp_path, swapped, entries):
    """Neither the spool's directory nor one above it: what the link leads to keeps its mode, and gets nothing."""
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o755)
    for name in entries:
        (victim / name).touch()
    before = snapshot(victim), victim.stat()
    with pytest.raises(NotASpool) as refused:
        make_store(tmp_path / "a/b/spool", mode=0o770, calls=Attacker(tmp_path / swapped, victim))
    assert "something else was put into its place" in refused.value.reason
    assert (snapshot(victim), victim.stat()) == before


def test_create_in_a_directory_that_a_symlink_leads_to_goes_on(tmp_path):
    """A link that was there before is followed: people put spools on other disks so."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    make_store(tmp_path / "link/spool").close()
    (tmp_path / "straight").symlink_to(tmp_path / "disk/spool")
    make_store(tmp_path / "straight").close()
    assert (tmp_path / "disk/spool/.spool.json").exists()


@pytest.mark.parametrize("how", ["Spool.create", "Spool.load", "Spool.load_unsafe", "command"])
def test_a_relative_path_in_a_deleted_working_directory_is_an_error_that_says_so(tmp_path, how):
    """No traceback: the answer is `NotASpool`, and names the cure."""
    code = """
    import os, sys
    import trio
    from helpers.spools import MAIL
    from trio_multispool import NotASpool, Spool
    from trio_multispool.cli import main

    os.chdir(sys.argv[2])
    os.rmdir(sys.argv[2])
    if sys.argv[1] == "command":
        sys.exit(main(["create", "spool", "send"]))
    answer = trio.run(getattr(Spool, sys.argv[1].partition(".")[2]), "spool", MAIL)
    print(answer.error, file=sys.stderr)
    assert isinstance(answer.error, NotASpool)
    """
    (tmp_path / "deleted").mkdir()
    done = run_python(code, how, tmp_path / "deleted", check=False)
    assert (done.returncode == 0) is (how != "command"), done
    assert "the working directory, which has been deleted; give an absolute path" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_that_is_replaced_again_and_again_keeps_few_descriptors(tmp_path):
    """The number that is open has a bound, and each look is at the directory that is there."""
    with_many = tmp_path / "spool"
    storage = make_store(with_many)
    counts = []
    for number in range(100):
        os.rename(with_many / "send/.checkout", tmp_path / str(number))
        (with_many / "send/.checkout").mkdir()
        (with_many / "send/.checkout" / str(number)).touch()
        assert storage.count("send") == 1
        counts.append(len(os.listdir("/proc/self/fd")))
    storage.close()
    assert counts[-1] == counts[50]
    assert counts[-1] < counts[0] + 50
