"""What users open: a spool, its channels, retention, and entries on an interval. Private."""
