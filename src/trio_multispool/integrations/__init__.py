"""For use with `opentelemetry`, `postgresql`, `prometheus` and `pydantic`: each an extra, imported by who uses it."""
