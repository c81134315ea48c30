"""Which process has an entry, as far as the store can tell."""

from pathlib import Path

from trio_multispool.clock import this_process
from trio_multispool.model.text import printable
from trio_multispool.storage.requests import Owner


def command_of(owner: Owner) -> str | None:
    """Return the name of a process's program, or `None` if it cannot be told."""
    if owner.host != this_process()[0]:
        return None
    try:
        return Path("/proc", str(owner.pid), "comm").read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError:  # it ended, belongs to somebody who hides it, or this is not Linux
        return None


def described(owner: Owner | None) -> dict[str, object] | None:
    """Return the owner for a JSON document."""
    return None if owner is None else {"pid": owner.pid, "command": command_of(owner), "host": owner.host}


def told(owner: Owner | None) -> str:
    """Name the owner for a person: `python[4242]`, or `process 4242 on elsewhere` if that is another host."""
    if owner is None:
        return "unknown"  # it died, or the kernel does not show it (see `ls --help`)
    if owner.host != this_process()[0]:
        return f"process {owner.pid} on {printable(owner.host)}"
    command = command_of(owner)
    return f"process {owner.pid}" if command is None else f"{printable(command)}[{owner.pid}]"
