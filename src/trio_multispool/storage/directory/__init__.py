"""The store in a directory: entries are files, and each step of an entry is one atomic rename. Private."""
