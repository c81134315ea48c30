"""Which entries a command acts on: those that are named, or those that fit what `--older-than` and the like ask."""

import dataclasses
import fnmatch
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, cast, final

import msgspec
from cyclopts import Parameter

from trio_multispool.cli import durations, metadata
from trio_multispool.cli.arguments import AsJson, DryRun, TrustFileSystem
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.output import Troubles
from trio_multispool.cli.spools import AnyStorage
from trio_multispool.errors import OF_ONE_FILE, EntryNotFound, UnreadableEntry
from trio_multispool.looks.ages import age_of
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.requests import Item


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Settling:
    """The options of a command that settles what is selected, or named."""

    older_than: Annotated[
        str | None,
        Parameter(help="Only entries whose metadata was written longer ago than this: `90`, `10m`, `1h30m`, `2d`."),
    ] = None
    meta: Annotated[
        list[str] | None,
        Parameter(
            help="Only entries whose metadata is a JSON object with this `key=value` (as for `put`); may be repeated."
        ),
    ] = None
    name: Annotated[
        list[str] | None,
        Parameter(
            help="Only entries whose name fits this pattern (`order-*`); may be repeated: one of them has to fit."
        ),
    ] = None
    everything: Annotated[bool, Parameter(name="--all", help="Every entry.")] = False
    dry_run: DryRun = False
    as_json: AsJson = False
    trust_file_system: TrustFileSystem = False

    @property
    def narrow(self) -> bool:
        """Whether some entries are selected, and not every one."""
        return self.older_than is not None or bool(self.meta) or bool(self.name)


_BREATH: Final = 64
"""The number of entries after which the caller may give up. It is small: on a slow disk, each look takes long."""

NOTHING_CHOSEN: Final = Settling()
"""Without any of the options."""


@final
@dataclasses.dataclass(frozen=True)
class Criteria:
    """What an entry has to be like: all have to be met, and of `names` one."""

    older_than: float | None
    meta: dict[str, object]
    names: Sequence[str]

    def fit_name(self, name: str) -> bool:
        """Tell whether the name does."""
        return not self.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names)

    def fit_age(self, item: Item, now: float) -> bool:
        """Tell whether it is old enough. If its date cannot be, nobody knows, and it is not."""
        if self.older_than is None:
            return True
        return item.has_possible_time(now) and age_of(item.modified_at, now) > self.older_than

    def fit_metadata(self, raw: bytes) -> bool:
        """Tell whether the metadata fits. Metadata that is not a JSON object fits no condition."""
        if not self.meta:
            return True
        try:
            found = msgspec.json.decode(raw, type=dict[str, object])
        except (ValueError, RecursionError):  # also of JSON that is no object
            return False
        return all(key in found and _same(found[key], value) for key, value in self.meta.items())


def _same(one: object, other: object) -> bool:
    """Compare two JSON values; to Python, `true` would be 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        items, others = cast("list[object]", one), cast("list[object]", other)
        return len(items) == len(others) and all(map(_same, items, others))
    if isinstance(one, dict) and isinstance(other, dict):
        members, rest = cast("dict[str, object]", one), cast("dict[str, object]", other)
        return members.keys() == rest.keys() and all(_same(value, rest[key]) for key, value in members.items())
    return one == other


def criteria_of(chosen: Settling, names: Sequence[str], *, more: bool = False) -> Criteria | None:
    """Return what entries have to be like, or `None` if they are named; ends the command if it must not guess.

    `more` says that something else was given which only a selection can have.
    """
    if names:
        if chosen.narrow or chosen.everything or more:
            raise Failure("entries are named or selected, not both", Exit.USAGE)
        return None
    if chosen.narrow and chosen.everything:
        raise Failure("--all and what selects some entries exclude each other", Exit.USAGE)
    if not chosen.narrow and not chosen.everything:
        raise Failure(
            "say which entries: by their names, --older-than, --meta or --name, or --all for every one", Exit.USAGE
        )
    older_than = None if chosen.older_than is None else durations.parse(chosen.older_than)
    meta: dict[str, object] = msgspec.json.decode(metadata.from_options(chosen.meta or [], None))
    return Criteria(older_than, meta, chosen.name or [])


def selected(
    storage: AnyStorage, queue: str | None, state: State, criteria: Criteria, troubles: Troubles
) -> Iterator[Item | None]:
    """Yield the entries that fit, in no order, holding none, and `None` after every `_BREATH` entries.

    An entry whose metadata cannot be read is told in `troubles`, and is left.
    """
    now = storage.now()
    for number, item in enumerate(storage.inventory(queue, state), 1):
        if number % _BREATH == 0:
            yield None
        if _fits(storage, item, criteria, now, troubles):
            yield item


def _fits(storage: AnyStorage, item: Item, criteria: Criteria, now: float, troubles: Troubles) -> bool:
    """Tell whether an entry fits; the cheap questions are asked first."""
    if not criteria.fit_name(item.name) or not criteria.fit_age(item, now):
        return False
    if not criteria.meta:
        return True
    try:
        raw = storage.read_metadata(item.place, item.name)
    except EntryNotFound:  # it has moved on
        return False
    except OF_ONE_FILE as error:
        troubles.tell(UnreadableEntry(item.place.queue, item.name, str(error)))
        return False
    return criteria.fit_metadata(raw)
