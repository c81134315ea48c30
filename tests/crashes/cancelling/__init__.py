"""A storm of cancellations over a spool: tasks that are cancelled at any moment, in all ways that there are."""
