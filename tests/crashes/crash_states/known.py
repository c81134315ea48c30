"""Crash states that are known to be bad, each with what is missing; and syncs that are made and not needed."""

from __future__ import annotations

KNOWN: dict[tuple[str, str], str] = {
    ("levels mixed", "weaker"): "an earlier save of level PROCESS is not safe, so a removed entry comes back",
}
"""By case and model."""

SPARE: dict[tuple[str, str], str] = {
    ("save in place", "sync send"): "the first of the two: the sync after the commit covers it, in the same directory",
    ("save in place unchanged", "sync send"): "both: power loss that undoes the save leaves what it would have made",
    **{
        (
            f"together: {case}, one sync for all files",
            "sync var/spool",
        ): "a flush of the disk's cache, which is not modelled"
        for case in ("enqueued", "three saved")
    },
    (
        "together: saved, removed, returned",
        "sync retry",
    ): "the removal's sync of send/.checkout carries the save's rename",
}
"""By case and words: syncs without which no state is bad under any model, and why."""
