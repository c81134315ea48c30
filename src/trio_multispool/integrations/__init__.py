"""For use with `opentelemetry`, `prometheus` and `pydantic`: each imported by who uses it, and an extra of its own."""
