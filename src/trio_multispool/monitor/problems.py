"""What can be wrong with a spool: one frozen struct each.

Two runs report the same problem if its kind, its name and its place are the same: `==` and `hash` ignore the age, the
reason why metadata cannot be decoded, and whose an unreadable file is.
"""

from __future__ import annotations

from typing import ClassVar, Final, TypeAlias, final

import msgspec

from trio_multispool.storage.findings import Dir, Kind

_NOT_OF_THE_IDENTITY: Final = {"age", "reason", "owner"}


class _Aged(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """The field of all problems that is passed by keyword, and comes last."""

    age: float = 0.0
    """Seconds from when the file was written or moved (see the problem) to when the problem was found."""


class _Problem(_Aged, frozen=True, eq=False):
    """What all problems have in common."""

    name: str
    """The name of the entry, or of the file if it belongs to no entry."""
    dir: Dir
    """Where it is. (`Duplicated` gives one of the places.)"""

    _message: ClassVar[str] = ""
    _remedy: ClassVar[str] = ""
    _messages: ClassVar[dict[Kind, str]] = {}
    """Other sentences for directories of some kinds."""
    _remedies: ClassVar[dict[Kind, str]] = {}

    @property
    def message(self) -> str:
        """What is wrong, in a sentence."""
        return self._say(self._messages, self._message)

    @property
    def remedy(self) -> str:
        """What `repair` does about it, in a sentence."""
        return self._say(self._remedies, self._remedy)

    def _say(self, sentences: dict[Kind, str], otherwise: str) -> str:
        return sentences.get(self.dir.kind, otherwise).format_map(msgspec.structs.asdict(self))

    @property
    def queue(self) -> str | None:
        """The queue that it concerns, or None."""
        return self.dir.queue or None

    def _identity(self) -> tuple[object, ...]:
        fields = self.__struct_fields__
        return (type(self), *(getattr(self, field) for field in fields if field not in _NOT_OF_THE_IDENTITY))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Problem):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


@final
class TooOld(_Problem, frozen=True, eq=False):
    """A file has been where it is for longer than the limit of that directory.

    The age counts from the last write of an available entry (which `ls` shows) or of a temporary file, from the due
    time of a waiting entry, and from the check-out of an entry that is checked out.
    """

    _message = "entry {name!r} has waited in {dir.queue!r} for too long"
    _messages: ClassVar[dict[Kind, str]] = {
        Kind.CHECKOUT: "entry {name!r} has been checked out of {dir.queue!r} for too long",
        Kind.TEMPORARY: "temporary file {name!r} has not been written to for too long",
        Kind.WAITING: "entry {name!r} of {dir.queue!r} has been due for too long",
    }
    _remedy = "it is left: look at why nobody works on it"
    _remedies: ClassVar[dict[Kind, str]] = {
        Kind.CHECKOUT: "it is left: its owner lives; look at that process",
        Kind.TEMPORARY: "it is deleted if its writer is dead",
    }


@final
class Orphaned(_Problem, frozen=True, eq=False):
    """A reservation, data or notes belong to no entry, and nobody is making one of that name."""

    _message = "the reservation of {name!r} belongs to no entry"
    _messages: ClassVar[dict[Kind, str]] = {
        Kind.DATA: "data of {name!r} in {dir} belong to no entry",
        Kind.NOTES: "notes of {name!r} in {dir} belong to no entry",
    }
    _remedy = "the files under that name are deleted"


@final
class Duplicated(_Problem, frozen=True, eq=False):
    """One entry lies in several places (`dirs`)."""

    dirs: tuple[Dir, ...] = ()

    @property
    def message(self) -> str:
        """What is wrong, in a sentence."""
        return f"entry {self.name!r} is in several places: {', '.join(map(str, self.dirs))}"

    @property
    def remedy(self) -> str:
        """What `repair` does about it, in a sentence."""
        if self.is_provable:
            return "the stale copies that nobody has checked out are deleted"
        return "it is left: which of them is the later cannot be proved; move one away by hand"

    @property
    def is_provable(self) -> bool:
        """Whether it is known which copy is the entry: any other place is later than a check-out without an owner."""
        return sum(each.kind is not Kind.CHECKOUT for each in self.dirs) <= 1


@final
class MissingData(_Problem, frozen=True, eq=False):
    """An entry has no data file. Every entry has one, though it may be empty."""

    _message = "entry {name!r} in {dir} has lost its data"
    _remedy = "its metadata is set aside in quarantine"


@final
class MissingReservation(_Problem, frozen=True, eq=False):
    """An entry has no file in `.registry`: its name is not reserved, and there is nothing to lock."""

    _message = "entry {name!r} in {dir} has no reservation"
    _remedy = "the reservation is made again"


@final
class Undecodable(_Problem, frozen=True, eq=False):
    """The metadata of an available entry cannot be decoded; `reason` says why."""

    reason: str = ""
    _message = "the metadata of entry {name!r} in {dir} cannot be decoded: {reason}"
    _remedy = "it is set aside in quarantine"


@final
class Misdated(_Problem, frozen=True, eq=False):
    """An entry waits, and the date of its file cannot be when it is due; `reason` says why."""

    reason: str = ""
    _message = "when entry {name!r} in {dir} is due cannot be told: {reason}"
    _remedy = "it is left: only a person knows when it is due; touch its file with that time, or copy it with its times"


@final
class Abandoned(_Problem, frozen=True, eq=False):
    """An entry is checked out, and the kernel says that nobody holds it: its owner died. The age is the check-out's."""

    _message = "entry {name!r} is checked out of {dir.queue!r}, and its owner is dead"
    _remedy = "it goes back to {dir.queue!r}"


@final
class Unreadable(_Problem, frozen=True, eq=False):
    """This process may not read a file of an entry, or a directory of entries; `what` says which, `owner` whose it is.

    If root looks, it is what the spool's owner may not read.
    """

    what: str = ""
    owner: str = ""
    """The user, the group and the mode: `root:root, mode 600`."""
    _message = "{what} {name!r} in {dir} cannot be read: it belongs to {owner}"
    _remedy = "it is left: only its owner and root can change that; give it to the spool's owner, by chown"


@final
class ForeignFile(_Problem, frozen=True, eq=False):
    """A file in the spool does not belong there; `what` says what it is."""

    what: str = ""
    _message = "{name!r} in {dir} is no part of a spool ({what})"
    _remedy = "it is left: nobody can tell whose it is; move it away by hand"


@final
class UnreadableNotes(_Problem, frozen=True, eq=False):
    """The notes of an entry cannot be read, or until when a name is remembered cannot be told; `reason` says why."""

    reason: str = ""

    _message = "until when {name!r} in {dir} is remembered cannot be told, so that name is refused: {reason}"
    _messages: ClassVar[dict[Kind, str]] = {
        Kind.NOTES: "the notes of entry {name!r} in {dir} cannot be read, and count as none: {reason}"
    }
    _remedy = "it is left: only a person knows when the name may be used again; then delete the file"
    _remedies: ClassVar[dict[Kind, str]] = {
        Kind.NOTES: "it is left: a person may want to read it; it goes with the entry"
    }


Problem: TypeAlias = (
    TooOld
    | Orphaned
    | Duplicated
    | MissingData
    | MissingReservation
    | Undecodable
    | UnreadableNotes
    | Misdated
    | Abandoned
    | Unreadable
    | ForeignFile
)
"""Everything that can be wrong."""
