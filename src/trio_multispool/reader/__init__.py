"""Take entries out of a queue, one by one or in a pool, and try failed ones again. Private."""
