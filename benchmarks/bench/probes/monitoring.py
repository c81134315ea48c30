"""How long one check of the monitor takes over very many entries, and how much memory."""

from __future__ import annotations

import time

import trio

from bench.probes import memory, run
from bench.probes.filling import fill
from bench.systems.own import NOTES
from trio_multispool import Spool
from trio_multispool.monitor import Limits, Monitor


def measure(folder: str, *, entries: int) -> dict[str, float]:
    """Check once."""
    fill(f"{folder}/spool", entries)
    return trio.run(_check, f"{folder}/spool")


async def _check(path: str) -> dict[str, float]:
    async with (await Spool.load(path, NOTES)).unwrap() as spool:
        began = time.perf_counter()
        problems = (await Monitor(spool, Limits()).run_once()).unwrap()
        took = time.perf_counter() - began
    if problems:
        raise RuntimeError(f"a healthy spool has {len(problems)} problems, the first: {problems[0].message}")
    return {"check": took, "memory": memory()}


if __name__ == "__main__":
    run(measure)
