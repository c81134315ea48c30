"""Ready instrumentations: `opentelemetry` and `prometheus`, each imported by who uses it, and an extra of its own."""
