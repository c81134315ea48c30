"""How the command ends: exit codes, and which trouble has which."""

import enum
from typing import Final, final

from trio_multispool import errors
from trio_multispool.errors import NotASpool, SharedFileSystem, SpoolError


class Exit(enum.IntEnum):
    """What the exit codes mean; `128 + N` stands for the end by signal N."""

    SUCCESS = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    BUSY = 4
    REFUSED = 5
    SOME_FAILED = 6
    PROBLEMS = 7
    UNTOLD = 8


@final
class Failure(Exception):
    """Ends the command with one line on standard error and an exit code."""

    def __init__(self, message: str, code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.code: int = int(code)


_CODES: Final[dict[Exit, tuple[type[SpoolError], ...]]] = {
    Exit.USAGE: (errors.InvalidName,),
    Exit.NOT_FOUND: (errors.EntryNotFound, errors.DataNotFound),
    Exit.BUSY: (errors.EntryBusy, errors.NameTaken),
    Exit.REFUSED: (
        NotASpool,
        SharedFileSystem,
        errors.DirectoryNotEmpty,
        errors.SpoolGone,
        errors.SpoolReplaced,
        errors.UnsupportedFormat,
        errors.WorldWritable,
        errors.NotAdopted,
        errors.TimeNotKept,
        errors.SeveralFileSystems,
    ),
}


def code_of(error: Failure | SpoolError) -> int:
    """Return the exit code that tells a script what kind of trouble this is."""
    if isinstance(error, Failure):
        return error.code
    return next((code for code, kinds in _CODES.items() if isinstance(error, kinds)), Exit.FAILED)


def said(error: Failure | SpoolError) -> str:
    """Say an error in the words of the command line, where the library's speak of Python."""
    match error:
        case SharedFileSystem(path, file_system):
            return (
                f"{path!r} lies on {file_system}, which is not known to be local; use a local disk, or "
                "--trust-file-system if no other host mounts it"
            )
        case NotASpool(path, reason):
            reason = reason.replace("Spool.create or ", "").replace(
                "load with create_if_missing=True", "`multispool create`"
            )
            return f"{path!r} is not a spool that can be used: {reason}"
        case _:
            return str(error)
