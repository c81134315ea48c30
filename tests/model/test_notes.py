"""What lies beside entries is decoded within limits, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_multispool.model.attempts import LARGEST_HISTORY, Mark, begun, encode_history, failed, failure_of, history_in
from trio_multispool.model.notes import DEEPEST, LARGEST, decode_beside, decode_notes, encode_notes

TEXTS = st.text(alphabet='[]{}"\\a/\n', max_size=8)
TREES = st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))


def nested(value: Any, levels: int) -> Any:
    """Put a value into so many lists and objects."""
    for level in range(levels):
        value = [value] if level % 2 else {'"}': value}
    return value


def depth(value: Any) -> int:
    """Tell how deep a value is nested."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(depth, parts), default=0)


@given(TREES)
def test_what_is_nested_as_deep_as_may_be_is_read_and_what_is_deeper_is_not(tree):
    """Brackets in strings do not count, whatever is escaped there."""
    deepest = [nested(tree, DEEPEST - 1 - depth(tree)), *[[]] * DEEPEST]
    assert decode_beside(json.dumps(deepest).encode(), object) == deepest
    with pytest.raises(ValueError, match="deeper than"):
        decode_beside(json.dumps([deepest]).encode(), object)


@given(st.binary(max_size=200) | st.text(alphabet='[]{}":,\\1', max_size=200).map(str.encode))
def test_what_is_no_json_is_a_value_error(raw):
    """And nothing else, as of `UnicodeDecodeError`, which is one."""
    try:
        decode_beside(raw, object)
    except ValueError:
        return
    json.loads(raw)


def test_what_is_larger_than_may_be_is_not_read():
    """By one byte."""
    assert decode_beside(b" " * (LARGEST - 1) + b"1", int) == 1
    with pytest.raises(ValueError, match="larger"):
        decode_beside(b" " * LARGEST + b"1", int)


def test_a_history_that_is_written_can_be_read():
    """However much the exceptions say: the first attempts go, and the last is kept."""
    error = ExceptionGroup("\x01" * 1000, [ValueError("\x01" * 1000) for _ in range(20)])
    for each in (error, *error.exceptions):
        for _ in range(20):
            each.add_note("\x01" * 1000)
    history = None
    for _ in range(4):
        history = failed(begun(history, Mark("send", 1.0, "h", 1)), failure_of(error), at=1.0, next_at=2.0)
        raw = encode_history(history)
        assert len(raw) <= LARGEST_HISTORY
        history = history_in(decode_notes(encode_notes({"attempts": msgspec.Raw(raw)})))
        assert history is not None
    assert (history.spent, history.attempts[-1].number) == (4, 4)
