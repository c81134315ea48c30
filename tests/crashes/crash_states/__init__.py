"""Every state that power loss may leave a disk in, rebuilt, recovered and looked at.

`recording` writes down what an operation asks of the disk, `disk` is what that means, `enumeration` says what of it
may be on the disk after power loss, `scene` and `cases` do operations and say what of them must be found again, and
`checking` rebuilds each state, recovers it and looks. `python -m crash_states` (in `tests/`) prints the table.
"""
