"""How Sphinx builds the documentation: `nox -s docs`."""

from __future__ import annotations

import re
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "trio-multispool"
author = "The trio-multispool contributors"
project_copyright = "2026, The trio-multispool contributors"
release = version = installed_version("trio-multispool")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"trio-multispool {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # 0o700 and not 448
autodoc_default_options = {"members": True, "show-inheritance": True}

# Docstrings are Markdown, which autodoc takes for reStructuredText. Of what they use, bold text and lists are the same
# in both; single backticks are code because of this role, and `fences_to_blocks` rewrites the fenced examples.
default_role = "code"

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)$")


def fences_to_blocks(_app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Turn Markdown's fenced code into `code-block` directives, in place."""
    result: list[str] = []
    inside = False
    for line in lines:
        fence = FENCE.match(line)
        if fence is None:
            result.append(f"    {line}" if inside and line else line)
            continue
        inside = not inside
        if inside:
            indent, language = fence["indent"], fence["language"] or "text"
            result += ["", f"{indent}.. code-block:: {language}", ""]
        else:
            result.append("")
    lines[:] = result


def setup(app: Sphinx) -> None:
    """Let Sphinx know of the above."""
    app.connect("autodoc-process-docstring", fences_to_blocks)
