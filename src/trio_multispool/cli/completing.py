"""What a shell is offered for the word that is being typed: queues and entries of the spool that was named."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from trio_multispool.cli.spools import looking
from trio_multispool.errors import SpoolError
from trio_multispool.model.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cyclopts.completion import CompletionContext

    from trio_multispool.cli.spools import AnyStorage

_MANY: Final = 1000
"""How many entries are offered at most: more are no help."""


def queue_names(context: CompletionContext) -> list[str]:
    """Offer the queues."""
    try:
        with looking(_spool(context)) as storage:
            return storage.queues()
    except SpoolError:
        return []


def entry_names(context: CompletionContext) -> list[str]:
    """Offer the available entries that begin with what was typed."""
    try:
        with looking(_spool(context)) as storage:
            return list(itertools.islice(_beginning(storage, context.incomplete), _MANY))
    except SpoolError:
        return []


def quarantined_names(context: CompletionContext) -> list[str]:
    """Offer the entries that were set aside and begin with what was typed."""
    try:
        with looking(_spool(context)) as storage:
            items = storage.inventory(None, State.QUARANTINED)
            names = (item.name for item in items if item.name.startswith(context.incomplete))
            return list(itertools.islice(names, _MANY))
    except SpoolError:
        return []


def names_or_queues(context: CompletionContext) -> list[str]:
    """Offer both."""
    return [*queue_names(context), *entry_names(context)]


def _beginning(storage: AnyStorage, prefix: str) -> Iterator[str]:
    for queue in storage.queues():
        yield from (name for name in storage.names(queue) if name.startswith(prefix))


def _spool(context: CompletionContext) -> str:
    return context["SPOOL"].raw or "."
