"""What the operations of one open store in PostgreSQL share."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, final

from trio_multispool.storage.postgres.claims import InHand
from trio_multispool.storage.postgres.hints import Hints

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping

    from trio_multispool.storage.postgres.keeper import Keeper
    from trio_multispool.storage.postgres.link import Links


@final
class Context:
    """One open store: its connections, its keeper, what it has in hand, and its clock."""

    def __init__(self, links: Links, now: Callable[[], float]) -> None:
        """Begin without a keeper: to look, and no more."""
        self.links: Links = links
        self.hints: Hints = Hints()
        self.in_hand: InHand = InHand()
        self.keeper: Keeper | None = None
        self.ahead: float = 0.0
        """How many seconds the server's clock was ahead when a store without a keeper was opened."""
        self._now = now
        self._tokens = itertools.count(1)

    def next_token(self) -> int:
        """Return a number that this owner has not used."""
        return next(self._tokens)

    def now(self) -> float:
        """Return the time of day by the server's clock, in seconds since 1970."""
        return self._now() + (self.ahead if self.keeper is None else self.keeper.ahead)

    def let_go(self, name: str, token: int) -> None:
        """Have an entry or a name let go of soon."""
        if self.keeper is not None:
            self.keeper.let_go(name, token)

    @contextlib.contextmanager
    def in_doubt(self, token: int) -> Generator[None]:
        """Surround what checks out or reserves with a token, until it is in hand.

        If that fails, have let go of what may have come of it. Nobody would know that this owner has it, who goes on
        living.
        """
        taking = self.in_hand.taking
        taking.add(token)
        try:
            yield
        except BaseException:  # passed on, of any kind: what came of it is nobody's
            if self.keeper is not None:
                self.keeper.let_go_all(token)
            raise
        finally:
            taking.discard(token)

    def arrived(self, names: Mapping[str, Collection[str]], left: Collection[str] = ()) -> None:
        """Tell of entries that came into queues, and of others that have left the store."""
        for queue, each in names.items():
            self.hints.arrived(queue, len(each))
        self.moved([*itertools.chain.from_iterable(names.values()), *left])

    def moved(self, names: Collection[str]) -> None:
        """Tell of entries that moved, or left."""
        self.hints.moved(names)
        if self.keeper is not None and self.hints.waiting:
            self.keeper.tell()
