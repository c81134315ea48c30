"""What a shell is offered for the word that is being typed: queues and entries of the spool that was named."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from trio_multispool.cli.exits import Failure
from trio_multispool.cli.spools import looking
from trio_multispool.errors import SpoolError
from trio_multispool.model.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cyclopts.completion import CompletionContext

    from trio_multispool.cli.spools import AnyStorage

_MANY: Final = 1000
"""How many entries are offered at most: more are no help."""


def queue_names(context: CompletionContext) -> list[str]:
    """Offer the queues; the shell chooses among them, in its own way."""
    return _offered(context, lambda storage: storage.queues(), "")


def entry_names(context: CompletionContext) -> list[str]:
    """Offer the available entries that begin with what was typed."""
    return _offered(context, lambda it: (name for queue in it.queues() for name in it.names(queue)))


def names_to_cancel(context: CompletionContext) -> list[str]:
    """Offer the entries that begin with what was typed, also those that somebody has; not what was set aside."""

    def names(storage: AnyStorage) -> Iterable[str]:
        return (item.name for item in storage.inventory() if item.place.state is not State.QUARANTINED)

    return _offered(context, names)


def quarantined_names(context: CompletionContext) -> list[str]:
    """Offer the entries that were set aside and begin with what was typed."""
    return _offered(context, lambda storage: (item.name for item in storage.inventory(None, State.QUARANTINED)))


def names_or_queues(context: CompletionContext) -> list[str]:
    """Offer both."""
    return [*queue_names(context), *entry_names(context)]


def _offered(
    context: CompletionContext, names: Callable[[AnyStorage], Iterable[str]], begins_with: str | None = None
) -> list[str]:
    try:
        with looking(_unquoted(context["SPOOL"].raw or ".")) as storage:
            typed = context.incomplete if begins_with is None else begins_with
            fitting = (name for name in names(storage) if name.startswith(typed))
            return list(itertools.islice(fitting, _MANY))
    except (Failure, SpoolError):
        return []


def _unquoted(word: str) -> str:
    """Return what stands in quotes, as bash hands a word on. A URL needs them there, for its `:` and `&`."""
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" else word
