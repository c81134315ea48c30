"""How long a pause lasts, as a person is told."""

from trio_multispool.looks.ages import human_age
from trio_multispool.model.pauses import Pause


def until(pause: Pause, now: float) -> str:
    """Say until when it is, and why."""
    told = "until it is resumed" if pause.until is None else f"for {human_age(pause.until - now)}"
    return f"{told}: {pause.reason}" if pause.reason else told
