"""Crash states that are known to be bad, each with what is missing; and syncs that are made and not needed."""

from __future__ import annotations

WEAK = ("weak", "weaker")

_COLLECTED = "what a killed removal left is collected before the removal itself is synced"
_RAISED = "a call of level POWER in a PROCESS spool does not sync the queues that earlier calls moved the entry out of"

KNOWN: dict[tuple[str, str], str] = {
    **{("quarantine", model): "neither the queue nor a new quarantine directory is synced before" for model in WEAK},
    **{(f"{name}, killed and recovered", model): _COLLECTED for name in ("remove", "direct remove") for model in WEAK},
    **{("remove, killed, enqueued again", model): _COLLECTED for model in WEAK},
    **{("a queue in the making", model): "loading does not sync directories that another is making" for model in WEAK},
    **{
        (f"PROCESS spool: enqueue, save, POWER {last}", model): _RAISED
        for last in ("save", "save unchanged", "remove", "direct save", "direct remove")
        for model in WEAK
    },
    **{
        (
            "PROCESS spool: enqueue, POWER direct save",
            model,
        ): "a direct save does not sync the data that an enqueue left"
        for model in ("ordered", *WEAK)
    },
    **{("two creators", model): "a creator does not sync what it finds made by another" for model in WEAK},
    ("direct remove", "weaker"): "an earlier return is not safe, so the entry comes back as checked out",
    ("levels mixed", "weaker"): "an earlier save of level PROCESS is not safe, so a removed entry comes back",
    ("levels mixed, direct operations", "weaker"): "an earlier save of level PROCESS is not safe, as above",
}
"""By case and model."""

SPARE: dict[tuple[str, str], str] = {
    ("save in place", "sync send"): "the first of the two: the sync after the commit covers it, in the same directory",
    ("save in place unchanged", "sync send"): "both: power loss that undoes the save leaves what it would have made",
    (
        "together: saved, removed, returned",
        "sync retry",
    ): "the removal's sync of send/.checkout carries the save's rename",
}
"""By case and words: syncs without which no state is bad under any model, and why."""
