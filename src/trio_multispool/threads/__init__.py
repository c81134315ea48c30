"""Blocking work in worker threads, safe under cancellation; calls that come together share a thread. Private."""
