"""The process in which one system is measured: `python -m bench.worker WORK`, which `crew` starts.

It opens the system, says so with a line, and then does each phase that it is sent a line for (`PHASE COUNT`): it gets
ready, says so, is sent another line as soon as all processes are ready, and answers with a line that tells when it
began and ended. It ends with its standard input.
"""

from __future__ import annotations

import sys

import msgspec

from bench.systems import SYSTEMS
from bench.work import Work


def main() -> None:
    """Do what is asked."""
    work = msgspec.json.decode(sys.argv[1], type=Work)
    running = SYSTEMS[work.system].opened(work)
    print("ready", flush=True)
    for line in sys.stdin:
        phase, count = line.split()
        print(msgspec.json.encode(running.measure(phase, int(count), wait_for_the_others)).decode(), flush=True)


def wait_for_the_others() -> None:
    """Say that everything is ready, and return when it is for all."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("the others have gone")


if __name__ == "__main__":
    main()
