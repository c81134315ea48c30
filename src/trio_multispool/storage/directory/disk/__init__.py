"""The file system: system calls, where things lie, single files, locks, what an `OSError` means. Private."""
