"""What test modules share: `spools`, `calls` and `processes`."""
