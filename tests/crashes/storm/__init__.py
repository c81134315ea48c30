"""A storm of SIGKILLs over a spool: workers that are killed at any moment, and what must be true afterwards."""
