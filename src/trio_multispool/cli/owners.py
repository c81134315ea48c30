"""Which process has an entry, as far as the kernel shows it."""

from pathlib import Path

from trio_multispool.cli.output import printable


def command_of(pid: int) -> str | None:
    """Return the name of a process's program, or `None` if it cannot be told."""
    try:
        return Path("/proc", str(pid), "comm").read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError:  # it ended, belongs to somebody who hides it, or this is not Linux
        return None


def described(pid: int | None) -> dict[str, object] | None:
    """Return the owner for a JSON document."""
    return None if pid is None else {"pid": pid, "command": command_of(pid)}


def told(pid: int | None) -> str:
    """Name the owner for a person: `python[4242]`."""
    if pid is None:
        return "unknown"  # it died, or the kernel does not show it (see `ls --help`)
    command = command_of(pid)
    return f"process {pid}" if command is None else f"{printable(command)}[{pid}]"
