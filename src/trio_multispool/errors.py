"""The closed family of errors that operations answer with.

Each is an exception, so that `unwrap()` raises something worth reading. Each has positional fields, so that it can be
matched on, compared and pickled. Its message names the thing that is in trouble, and says what to do.
"""

from __future__ import annotations

import dataclasses
import datetime  # noqa: TC003  # dataclasses look at annotations
import errno as errno_codes
import os
from typing import ClassVar, Final, TypeAlias, dataclass_transform


@dataclass_transform(eq_default=False)
@dataclasses.dataclass(eq=False, repr=False)
class SpoolError(Exception):
    """The base of all errors of this library. Catch it to catch any of them.

    Each class of them is a dataclass. Two errors are equal when they are of one class and have equal fields.
    """

    _sentence: ClassVar[str] = ""
    """What the error says, with its fields in braces."""

    def __init_subclass__(cls) -> None:
        _ = dataclasses.dataclass(eq=False, repr=False)(cls)

    def __post_init__(self) -> None:
        """Hand the fields to `Exception`, which pickles them and compares nothing."""
        self.args: tuple[object, ...] = tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, SpoolError):
            return NotImplemented
        return bool(self.args == other.args)

    def __hash__(self) -> int:
        return hash((type(self), self.args))

    def __repr__(self) -> str:
        """Show the fields. One method serves all classes, which imports faster than one for each."""
        shown = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self))
        return f"{type(self).__qualname__}({shown})"

    def __str__(self) -> str:
        return self._sentence.format_map(vars(self)) or type(self).__name__


class EntryNotFound(SpoolError):
    """The entry is not in that queue: it was taken, moved or removed, or it never was there."""

    queue: str
    """Empty if it was looked for in all of them."""
    name: str
    _sentence = "there is no entry {name!r} in queue {queue!r}; it may have been taken, moved or removed"

    def __str__(self) -> str:
        if self.queue:
            return super().__str__()
        return f"there is no entry {self.name!r} in this spool; it may have been removed"


class EntryCancelled(SpoolError):
    """Somebody asked to cancel the work on the entry, by `spool.cancel`. The work was cancelled, the entry removed."""

    name: str
    reason: str
    """Why, as who asked for it says; or that no reason was given."""
    _sentence = "the work on entry {name!r} was cancelled, as somebody asked: {reason}"


class EntryBusy(SpoolError):
    """Another owner, in this process or another, holds the entry's lock; try again when it is done.

    A worker, an enqueue that has not finished, or a reserved name. Recovery, the monitor and export also hold the lock
    briefly. (`docs/errors.md` lists every cause.)
    """

    name: str
    _sentence = "entry {name!r} is being worked on by another owner; try again when it is done"


class NameTaken(SpoolError):
    """An entry of that name exists: in some queue, checked out, or in quarantine. Nothing was enqueued.

    Or the entry was removed, and its name is still remembered (`Use(name, remember=…)`).
    """

    name: str
    finished: bool = False
    """True if the entry is gone and only its name is remembered."""

    def __str__(self) -> str:
        if self.finished:
            return f"an entry named {self.name!r} was removed from this spool, and its name is remembered"
        return f"an entry named {self.name!r} already exists in this spool"


class InvalidName(SpoolError, ValueError):  # pyright: ignore[reportUnsafeMultipleInheritance]  # both are Exception
    """The name cannot be used for an entry or a queue.

    Names are 1 to 200 bytes of UTF-8. They have no slash, no control character, and no dot at the start.
    """

    name: str
    reason: str
    _sentence = "{name!r} cannot be a name: {reason}"


class NotASpool(SpoolError):
    """The path holds no spool, or not the one you asked for: a queue's directory is missing, for example."""

    path: str
    reason: str
    _sentence = "{path!r} is not a spool that can be used: {reason}"


class SpoolGone(SpoolError):
    """The spool's directory is not at its path any more: it was moved or removed, or its file system was unmounted.

    Likewise if one is missing in it that every entry needs: `.registry`, `.data` or `.tmp`. Then `path` is that one.
    Jobs in hand can still be settled, where the directory is now. Everything else answers this, for as long as the
    spool is open: end, and open the spool anew where it is.
    """

    path: str
    what: str = "the spool's directory"
    """What is missing there. On a server: the spool's schema."""
    _sentence = (
        "{what} is not at {path!r} any more: it was moved, removed or unmounted; put it back, "
        "and start this program anew"
    )


class SpoolReplaced(SpoolError):
    """Another directory is at the spool's path: a new one, one from a backup, or one mounted over it.

    Likewise at that of `.registry`, `.data` or `.tmp` in it. Then `path` is that one.
    It is never followed: what this process has in hand would be done twice against a restored copy. Jobs in hand can
    still be settled, in the directory that they are from. Everything else answers this: end, and open the spool anew.
    """

    path: str
    _sentence = (
        "another directory has taken the place of the spool at {path!r}; start this program anew to use that one"
    )


class DirectoryNotEmpty(SpoolError):
    """The directory or the schema holds something else, and no spool is made there. Choose an empty or a new one."""

    path: str
    cure: str = "choose an empty or a new directory"
    """What to do."""
    _sentence = "{path!r} is not empty and not a spool; {cure}"


class UnsupportedFormat(SpoolError):
    """`.spool.json` cannot be read, or names a format that this version does not know. Nothing was touched.

    Or the tables on the server are of a version that this one cannot use: newer, or older and not brought up to date.
    """

    path: str
    found: str
    cure: str = "upgrade"
    """What to do."""
    _sentence = "the spool at {path!r} has a format that this version cannot use ({found}); {cure}"


class WorldWritable(SpoolError):
    """Everybody on this machine may write into the spool. Take that permission away (`chmod o-w`)."""

    path: str
    _sentence = "{path!r} can be written by everybody; take that away with: chmod o-w {path!r}"


class NotAdopted(SpoolError):
    """Programs that do not know this feature may use the spool. When the last has stopped, `adopt` the spool."""

    path: str
    what: str
    """The feature that they do not know."""
    _sentence = (
        "programs that use {path!r} need not know {what}, because it has no .spool.json; when the last "
        "of them has stopped, adopt the spool"
    )


class TimeNotKept(SpoolError):
    """The file system cannot keep the time until which an entry is to wait, or a name is to be remembered.

    Nothing was enqueued, and what was to be saved is where it was.

    Some end in January 2038, such as ext4 with inodes of 128 bytes and XFS without `bigtime`.
    """

    path: str
    at: datetime.datetime
    _sentence = (
        "the file system of {path!r} cannot keep the time {at}; give an earlier time, or move "
        "the spool to a file system whose time stamps go further"
    )


class SharedFileSystem(SpoolError):
    """The file system is not known to be local, so its locks and renames may not hold between hosts.

    On a mount that several hosts share, two of them can both be told that they took one entry. Put the spool on a local
    disk, or pass `trust_file_system=True` if you know that only this host mounts it.
    """

    path: str
    file_system: str
    _sentence = (
        "{path!r} lies on {file_system}, which is not known to be local; use a local disk, or "
        "trust_file_system=True if no other host mounts it"
    )


class SeveralFileSystems(SpoolError):
    """A directory of the spool lies on another file system or mount than the rest: no rename can reach it."""

    path: str
    directory: str
    _sentence = (
        "directory {directory!r} of the spool {path!r} is on another file system or mount; "
        "all directories of a spool must be on one"
    )


class AccessDenied(SpoolError):
    """Permissions of a file or directory forbid it (EACCES, EPERM). The entry is where it was; check owner and mode.

    Also: this process may not give a new file to the spool's owner or group. Nothing was committed; `cure` says more.
    On a server: the role lacks a right (SQLSTATE 42501), or needs a password that was not given.
    """

    operation: str
    path: str
    cure: str = "check its owner and mode"
    """What to do."""
    _sentence = "not permitted to {operation} {path!r}; {cure}"


class ReadOnlySpool(SpoolError):
    """The spool's file system is mounted read-only (EROFS), or its server takes no writes. Nothing was changed."""

    operation: str
    path: str
    reason: str = "its file system is mounted read-only"
    _sentence = "cannot {operation} {path!r}: {reason}"


class CorruptMetadata(SpoolError):
    """The entry's metadata cannot be decoded. A check-out sets such an entry aside in `.quarantine/QUEUE/`."""

    queue: str
    name: str
    reason: str
    _sentence = "the metadata of entry {name!r} of queue {queue!r} cannot be decoded: {reason}"


class CorruptData(SpoolError):
    """The entry's data cannot be decoded. The entry stays as it is; the handler decides what becomes of it."""

    name: str
    reason: str
    _sentence = "the data of entry {name!r} cannot be decoded: {reason}"


class DataNotFound(SpoolError):
    """The entry has no data file, though every entry should. Something outside this library took it."""

    name: str
    _sentence = "the data file of entry {name!r} is missing"


class EncodingFailed(SpoolError):
    """The codec cannot encode the metadata or the data (`part` says which), or it would not come back equal.

    Nothing was changed. `reason` says where and what; the codec's own exception is the `__cause__`. Mend the value, its
    type or the codec.
    """

    part: str
    reason: str
    _sentence = "the {part} cannot be encoded: {reason}"


class OutOfSpace(SpoolError):
    """The disk, the quota, or a directory's index is full. The entry is where it was; make room and try again."""

    operation: str
    path: str
    reason: str
    _sentence = "no room to {operation} {path!r}: {reason}"


class TooManyOpenFiles(SpoolError):
    """The process (EMFILE) or the system (ENFILE) has run out of file descriptors. The entry is where it was.

    Each entry in hand holds one. Raise `ulimit -n`, or hold fewer entries at a time.
    """

    operation: str
    reason: str
    _sentence = "cannot {operation}: {reason}; raise `ulimit -n` or hold fewer entries at a time"


class NotARegularFile(SpoolError):
    """A symbolic link, a FIFO or a directory lies where a file should be. It was left alone; remove it by hand.

    Or something else lies where a directory should be: a file at `.notes`, for example.
    """

    path: str
    directory: bool = False
    """True if a directory should be there."""

    def __str__(self) -> str:
        wanted = "directory" if self.directory else "regular file"
        return f"{self.path!r} is not a {wanted}; it was left alone, remove it by hand"


class UnreadableEntry(SpoolError):
    """The entry's metadata file cannot be read. It stays where it is; readers pass it over and log it."""

    queue: str
    name: str
    reason: str
    _sentence = "entry {name!r} of queue {queue!r} cannot be read: {reason}"


class StorageFailure(SpoolError):
    """The operating system, or the server, reported an error without a class of its own here, such as EIO."""

    operation: str
    path: str
    errno: int
    """EIO for what a server reports, ETIMEDOUT for a statement that it has cancelled."""
    reason: str = ""
    """What the server said."""

    def __str__(self) -> str:
        code = errno_codes.errorcode.get(self.errno, str(self.errno))
        return f"could not {self.operation} {self.path!r}: {self.reason or os.strerror(self.errno)} ({code})"


class StoreUnreachable(SpoolError):
    """The server of the spool cannot be reached: it is down or restarting, has no connection left, or refuses ours.

    Nothing was changed. The library has tried again for some seconds; go on trying, or end. What this process has in
    hand stays its own, unless its server gives it up: see `OwnershipLost`.
    """

    operation: str
    location: str
    reason: str
    _sentence = "cannot {operation} {location!r}: the server cannot be reached: {reason}"


class OwnershipLost(SpoolError):
    """The entry is not where its owner had it: an `…_unsafe` operation took it, or somebody moved it by hand."""

    queue: str
    name: str
    _sentence = "entry {name!r}, checked out of {queue!r}, was taken away from its owner"


class DurabilityUnknown(SpoolError):
    """The change was made (`committed` is true), but the sync after it failed: power loss may undo it.

    If `committed` is false, the disk failed in the commit itself. Nobody can tell whether the change took place: look
    where the entry is before you try again. Nothing was removed from a directory.

    After this, the spool refuses operations that must survive power loss, because the kernel forgets which writes it
    lost. Check the disk, then load the spool again.

    On a server, `committed` is always false: the connection was lost in the commit, and the server did not come back in
    time to be asked. The spool goes on when it is back.
    """

    name: str
    queue: str
    committed: bool
    reason: str = "the disk failed"
    """What happened in the middle of the change."""

    def __str__(self) -> str:
        if not self.committed:
            return (
                f"{self.reason} in the middle of a change of entry {self.name!r} in queue {self.queue!r}; whether it "
                "took place could not be seen: look where the entry is before trying again"
            )
        return (
            f"the change of entry {self.name!r} in queue {self.queue!r} was made, but whether it would survive "
            "power loss is unknown: a sync failed; check the disk and load the spool again"
        )


class SyncsRefused(SpoolError):
    """An earlier sync of a directory failed, so the spool accepts nothing more that must survive power loss.

    Releasing, listing and reading go on. Check the disk, then load the spool again.
    """

    path: str
    _sentence = "an earlier sync of a directory of {path!r} failed; check the disk and load the spool again"


OF_ONE_FILE: Final = (NotARegularFile, AccessDenied, StorageFailure)
"""Errors about one file, and not about the whole store."""

Trouble: TypeAlias = (
    AccessDenied
    | ReadOnlySpool
    | OutOfSpace
    | TooManyOpenFiles
    | NotARegularFile
    | SeveralFileSystems
    | SpoolGone
    | SpoolReplaced
    | StorageFailure
    | StoreUnreachable
)
"""What the operating system, or a server, can answer to any operation; the entry is where it was.

`dequeue` answers nothing else.
"""

LoadError: TypeAlias = NotASpool | DirectoryNotEmpty | UnsupportedFormat | WorldWritable | SharedFileSystem | Trouble
"""What `Spool.create` and `Spool.load` can answer."""

ReserveError: TypeAlias = InvalidName | NameTaken | SyncsRefused | Trouble
"""What `reserve_name` can answer."""

EnqueueError: TypeAlias = ReserveError | EntryBusy | EncodingFailed | NotAdopted | TimeNotKept | DurabilityUnknown
"""What `enqueue` can answer."""

TryCheckoutError: TypeAlias = CorruptMetadata | UnreadableEntry | Trouble
"""What `try_checkout` can answer."""

CheckoutError: TypeAlias = EntryNotFound | EntryBusy | TryCheckoutError
"""What `checkout` can answer."""

ReleaseError: TypeAlias = OwnershipLost | NameTaken | Trouble
"""What `release` can answer."""

RemoveError: TypeAlias = OwnershipLost | DurabilityUnknown | SyncsRefused | Trouble
"""What `remove` can answer."""

SaveError: TypeAlias = RemoveError | NameTaken | EncodingFailed | NotAdopted | TimeNotKept
"""What `save` can answer. (A job of `checkouts_unsafe`, which has no lock, can also answer `EntryBusy`.)"""

DirectRemoveError: TypeAlias = EntryNotFound | DurabilityUnknown | SyncsRefused | Trouble
"""What `entry.direct.remove` can answer."""

DirectSaveError: TypeAlias = DirectRemoveError | EntryBusy | EncodingFailed
"""What `entry.direct.save` can answer."""

DataLoadError: TypeAlias = DataNotFound | CorruptData | Trouble
"""What `DataFile.load` can answer."""

DataSaveError: TypeAlias = (
    DataNotFound | EntryBusy | OwnershipLost | EncodingFailed | DurabilityUnknown | SyncsRefused | Trouble
)
"""What `DataFile.save` can answer."""
