"""A durable, brokerless work queue in a directory, for Trio and AnyIO: entries are files, moves are atomic renames."""

from __future__ import annotations

import sys
import typing

if sys.platform == "win32":
    raise ImportError("trio-multispool needs flock and renames relative to directories, which Windows does not have")

from trio_multispool.clock import prioritized_names
from trio_multispool.entries.datafile import DataFile
from trio_multispool.entries.entry import DirectEntry, Entry
from trio_multispool.entries.handlers import Handler
from trio_multispool.entries.job import CheckedOutEntry
from trio_multispool.entries.reserved_names import ReservedName, Use
from trio_multispool.errors import (
    AccessDenied,
    CorruptData,
    CorruptMetadata,
    DataNotFound,
    DirectoryNotEmpty,
    DurabilityUnknown,
    EncodingFailed,
    EntryBusy,
    EntryCancelled,
    EntryNotFound,
    InvalidName,
    NameTaken,
    NotAdopted,
    NotARegularFile,
    NotASpool,
    OutOfSpace,
    OwnershipLost,
    ReadOnlySpool,
    SeveralFileSystems,
    SharedFileSystem,
    SpoolError,
    SpoolGone,
    SpoolReplaced,
    StorageFailure,
    StoreUnreachable,
    SyncsRefused,
    TimeNotKept,
    TooManyOpenFiles,
    UnreadableEntry,
    UnsupportedFormat,
    WorldWritable,
)
from trio_multispool.model.attempts import Attempt, Failure
from trio_multispool.model.cancellation import Cancelled, CancelRequest
from trio_multispool.model.codecs import Bytes, DataCodec, Json, MessagePack, MetadataCodec, NoData, Text
from trio_multispool.model.lifecycle import State
from trio_multispool.model.names import NameGenerator, Prioritized, Reserve, TimeOrdered
from trio_multispool.model.notes import Progress
from trio_multispool.model.pauses import Pause
from trio_multispool.model.policies import Backoff, Durability, Exponential, Retention, Retry
from trio_multispool.model.results import Err, Ok, Result
from trio_multispool.model.spoolable import Spoolable
from trio_multispool.model.ticks import Missed
from trio_multispool.model.unread import UnreadErrWarning
from trio_multispool.model.verdicts import UNCHANGED, GiveUp, Release, Remove, RetryLater, Save, Unavailable, Verdict
from trio_multispool.reader.reader import QueueReader
from trio_multispool.spool.channel import ReceiveChannel, SendChannel
from trio_multispool.spool.channel_ends import ChannelAttribute, ChannelStatistics
from trio_multispool.spool.cron import Cron
from trio_multispool.spool.every import every
from trio_multispool.spool.received import Received
from trio_multispool.spool.spool import Spool
from trio_multispool.spool.whereabouts import Finished, Found
from trio_multispool.storage.requests import Recovered, Stat

__all__ = [
    "UNCHANGED",
    "AccessDenied",
    "Attempt",
    "Backoff",
    "Bytes",
    "CancelRequest",
    "Cancelled",
    "ChannelAttribute",
    "ChannelStatistics",
    "CheckedOutEntry",
    "CorruptData",
    "CorruptMetadata",
    "Cron",
    "DataCodec",
    "DataFile",
    "DataNotFound",
    "DirectEntry",
    "DirectoryNotEmpty",
    "Durability",
    "DurabilityUnknown",
    "EncodingFailed",
    "Entry",
    "EntryBusy",
    "EntryCancelled",
    "EntryNotFound",
    "Err",
    "Exponential",
    "Failure",
    "Finished",
    "Found",
    "GiveUp",
    "Handler",
    "InvalidName",
    "Json",
    "MessagePack",
    "MetadataCodec",
    "Missed",
    "NameGenerator",
    "NameTaken",
    "NoData",
    "NotARegularFile",
    "NotASpool",
    "NotAdopted",
    "Ok",
    "OutOfSpace",
    "OwnershipLost",
    "Pause",
    "Prioritized",
    "Progress",
    "QueueReader",
    "ReadOnlySpool",
    "ReceiveChannel",
    "Received",
    "Recovered",
    "Release",
    "Remove",
    "Reserve",
    "ReservedName",
    "Result",
    "Retention",
    "Retry",
    "RetryLater",
    "Save",
    "SendChannel",
    "SeveralFileSystems",
    "SharedFileSystem",
    "Spool",
    "SpoolError",
    "SpoolGone",
    "SpoolReplaced",
    "Spoolable",
    "Stat",
    "State",
    "StorageFailure",
    "StoreUnreachable",
    "SyncsRefused",
    "Text",
    "TimeNotKept",
    "TimeOrdered",
    "TooManyOpenFiles",
    "Unavailable",
    "UnreadErrWarning",
    "UnreadableEntry",
    "UnsupportedFormat",
    "Use",
    "Verdict",
    "WorldWritable",
    "every",
    "prioritized_names",
]

__version__: str
"""The version of the installed library."""

if not typing.TYPE_CHECKING:  # a module with `__getattr__` would have every name, for type checkers

    def __getattr__(name: str) -> str:
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import metadata  # noqa: PLC0415  # it takes a while, and few ask

        try:
            return metadata.version("trio-multispool")
        except metadata.PackageNotFoundError:  # run from a source tree
            return "unknown (not installed)"
