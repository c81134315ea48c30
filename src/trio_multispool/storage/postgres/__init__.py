"""The store in PostgreSQL: entries are rows, and each step of an entry is one statement with one commit. Private."""
