"""A script for cron: it enqueues a reminder for each line of a file, and ends. `cron_script.py SPOOL FILE`.

Started twice on one day, it enqueues nothing twice.
"""

from __future__ import annotations

import datetime
import enum
import sys
from pathlib import Path

from trio_multispool import Spoolable, Use, blocking


class Reminders(enum.Enum):
    """The queues."""

    DUE = "due"


def main(path: str, file: str) -> None:
    """Enqueue, and say how many were new."""
    spool = blocking.Spool.create(path, Spoolable(Reminders, str)).unwrap()
    today, new = datetime.datetime.now(tz=datetime.UTC).date(), 0
    for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines()):
        use = Use(f"{today}-{number}", remember=datetime.timedelta(days=2))
        new += spool.enqueue_if_absent(Reminders.DUE, line, name=use).unwrap() is not None
    print(new, "new reminders")


if __name__ == "__main__":
    main(*sys.argv[1:])
