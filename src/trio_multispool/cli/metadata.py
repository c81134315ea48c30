"""Metadata on the command line: what `--meta` and `--meta-json` say, and what a person or a script is shown."""

import base64
from collections.abc import Sequence

import msgspec

from trio_multispool.cli import output
from trio_multispool.cli.exits import Exit, Failure

_INDENT = 2
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


def is_json(raw: bytes) -> bool:
    """Tell whether these bytes are one JSON value."""
    try:
        msgspec.json.decode(raw)
    except (ValueError, RecursionError):  # what is nested too deeply to be read is no JSON here
        return False
    return True


def for_person(raw: bytes, *, terminal: bool) -> bytes:
    """Return metadata to look at: JSON over several lines, anything else as it is.

    For a terminal, without what it would obey.
    """
    shown = msgspec.json.format(raw, indent=_INDENT) if is_json(raw) else raw
    if terminal:
        shown = output.printable(shown.decode("utf-8", "backslashreplace"), keep="\n\t").encode()
    return shown


def for_script(raw: bytes) -> dict[str, object]:
    """Return metadata for a JSON document: as the value that it is if it is JSON, and exactly, in base64, always.

    The value is on one line, as the document is: its numbers stay as they are written, and white space goes.
    """
    value = msgspec.Raw(msgspec.json.format(raw, indent=_ONE_LINE)) if is_json(raw) else None
    return {"metadata": value, "metadata_base64": base64.b64encode(raw).decode()}
