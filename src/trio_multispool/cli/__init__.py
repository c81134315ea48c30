"""The command `multispool`. Its dependencies are the extra `cli`; without them it says how to get them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_USAGE: Final = 2
_EXTRA: Final = ("cyclopts", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments`, by default those of the process, and return the exit code."""
    try:
        from trio_multispool.cli.app import run  # noqa: PLC0415  # the extra may be missing
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(f"multispool: the module {missing} is missing; the command needs the extra `cli`:", file=sys.stderr)
        print('  python -m pip install "trio-multispool[cli]"', file=sys.stderr)
        return _USAGE
    return run(sys.argv[1:] if arguments is None else arguments)
