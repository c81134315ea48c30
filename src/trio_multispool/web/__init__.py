"""A dashboard for spools, in the browser: an application to mount behind a login, which `multispool web` serves."""

from __future__ import annotations

try:
    from trio_multispool.web.application import app
    from trio_multispool.web.guard import Access
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in {"jinja2", "markupsafe", "starlette"}:
        raise
    _how = 'python -m pip install "trio-multispool[web]"'
    _message = f"the module {_error.name} is missing; the dashboard needs the extra `web`: {_how}"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

__all__ = ["Access", "app"]
