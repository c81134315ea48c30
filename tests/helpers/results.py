"""Looking at results."""

from __future__ import annotations

from trio_multispool import Err, SpoolError


def is_err(answer: object) -> bool:
    """Tell whether an operation was refused. It looks at the error, so that nothing warns of an `Err` unread."""
    return isinstance(answer, Err) and isinstance(answer.error, SpoolError)
