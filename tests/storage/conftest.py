"""The store that the suites for any store test, once for each kind in `helpers.conformance.STORES`."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, cast

import pytest

from helpers.conformance import STORES
from helpers.spools import Wall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from helpers.conformance import Kind
    from trio_multispool.storage.protocol import Storage


@pytest.fixture
def clock() -> Wall:
    """Stop the store's wall clock at a whole second of today; a test moves it by its `time`."""
    stopped = Wall()
    stopped.time = float(math.ceil(time.time()))
    return stopped


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Say how a handle on a store is opened, for each kind of store."""
    return cast("Kind", request.param)


@pytest.fixture
def open_store(kind: Kind, tmp_path: Path, clock: Wall) -> Iterator[Callable[[], Storage]]:
    """Open handles on one store, which are closed at the end: each stands for a process of its own."""
    opened: list[Storage] = []
    how = kind(tmp_path, clock)

    def open_another() -> Storage:
        opened.append(how())
        return opened[-1]

    yield open_another
    for storage in opened:
        storage.close()


@pytest.fixture
def store(open_store: Callable[[], Storage]) -> Storage:
    """Make an empty store."""
    return open_store()


@pytest.fixture
def other(open_store: Callable[[], Storage], store: Storage) -> Storage:
    """Open the same store a second time."""
    return open_store()
