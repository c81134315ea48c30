"""Metadata on the command line: what `--meta` and `--meta-json` say, and what a script is shown."""

import base64
from collections.abc import Sequence

import msgspec

from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.looks.metadata import is_json

_ONE_LINE = -1


def from_options(pairs: Sequence[str], text: str | None) -> bytes:
    """Return the JSON that the options ask for, `{}` by default."""
    if text is None:
        return _from_pairs(pairs)
    if pairs:
        raise Failure("--meta and --meta-json exclude each other", Exit.USAGE)
    raw = text.encode("utf-8", "surrogateescape")
    if not is_json(raw):
        raise Failure(f"--meta-json is not JSON: {text}", Exit.USAGE)
    return raw


def _from_pairs(pairs: Sequence[str]) -> bytes:
    found: dict[str, msgspec.Raw] = {}
    try:
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or not key:
                raise Failure(f"--meta wants key=value, not {pair!r}", Exit.USAGE)
            if key in found:
                raise Failure(f"--meta gives {key!r} twice", Exit.USAGE)
            found[key] = _value(value)
        return msgspec.json.encode(found)
    except UnicodeEncodeError:
        raise Failure("--meta is not valid UTF-8", Exit.USAGE) from None


def _value(text: str) -> msgspec.Raw:
    """Return a value as it was written if it is JSON, so that `0.10` stays `0.10`, and else as a string."""
    raw = text.encode("utf-8", "surrogateescape").strip()
    return msgspec.Raw(raw if is_json(raw) else msgspec.json.encode(text))


def for_script(raw: bytes) -> dict[str, object]:
    """Return metadata for a JSON document: as the value that it is if it is JSON, and exactly, in base64, always.

    The value is on one line, as the document is: its numbers stay as they are written, and white space goes.
    """
    value = msgspec.Raw(msgspec.json.format(raw, indent=_ONE_LINE)) if is_json(raw) else None
    return {"metadata": value, "metadata_base64": base64.b64encode(raw).decode()}
