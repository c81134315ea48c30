"""docs/sizing.md: the numbers in its prose are those of the source."""

from __future__ import annotations

import re

import pytest

from helpers.pages import PROJECT
from trio_multispool.session.cancellations import LOOK_AGAIN
from trio_multispool.storage.directory.disk.layout import MOST_HELD
from trio_multispool.storage.directory.disk.locks import MOST_LOCKS_AT_A_TIME, SHARE_OF_DESCRIPTORS
from trio_multispool.threads.offload import DEFAULT_THREADS

PROSE = re.sub(r"\s+", " ", (PROJECT / "docs" / "sizing.md").read_text(encoding="utf-8"))
POLLING = {1.0: "once a second"}[LOOK_AGAIN]
SHARE = {8: "an eighth"}[SHARE_OF_DESCRIPTORS]


@pytest.mark.parametrize(
    "sentence",
    [
        f"at most {MOST_HELD // 2} are kept open, and {SHARE} of `ulimit -n` where that is less",
        f"is {MOST_LOCKS_AT_A_TIME} at most, and likewise {SHARE} of `ulimit -n`",
        f"requests to cancel are looked for {POLLING}",
        f"at most {DEFAULT_THREADS} operations of a spool are in a thread at a time",
    ],
)
def test_a_bound_on_the_page_is_that_of_the_source(sentence):
    """Whoever changes it changes the page."""
    assert sentence in PROSE


@pytest.mark.parametrize("figure", ["8 to 10 ms", "110 MB", "66 MB"])
def test_a_figure_that_was_measured_elsewhere_is_quoted_as_it_stands_there(figure):
    """From docs/performance.md, which says how it was measured."""
    assert figure in PROSE
    assert figure in (PROJECT / "docs" / "performance.md").read_text(encoding="utf-8")
