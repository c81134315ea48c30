"""Which process has an entry: said in words and in JSON, by its host too."""

from __future__ import annotations

import pytest

from trio_multispool.clock import this_process
from trio_multispool.looks.owners import described, told
from trio_multispool.storage.requests import Owner

HERE, PID = this_process()


def test_a_process_of_this_host_is_called_by_its_program():
    """Its number goes with it; the host would tell nothing."""
    with open(f"/proc/{PID}/comm", encoding="utf-8") as file:
        command = file.read().rstrip()
    assert told(Owner(HERE, PID)) == f"{command}[{PID}]"
    assert described(Owner(HERE, PID)) == {"pid": PID, "command": command, "host": HERE}


@pytest.mark.parametrize(("host", "shown"), [("elsewhere", "elsewhere"), ("\x1b[31m", r"\x1b[31m")])
def test_a_process_of_another_host_is_not_looked_up_on_this_one(host, shown):
    """A number means another process there: only the host and the number are told."""
    assert told(Owner(host, PID)) == f"process {PID} on {shown}"
    assert described(Owner(host, PID)) == {"pid": PID, "command": None, "host": host}


def test_an_owner_that_cannot_be_told_is_unknown():
    """And `null` for scripts."""
    assert told(None) == "unknown"
    assert described(None) is None
