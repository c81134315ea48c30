"""A durable, brokerless work queue in a directory, for Trio and AnyIO: entries are files, moves are atomic renames."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("trio-multispool needs flock and renames relative to directories, which Windows does not have")

from trio_multispool.channel import ReceiveChannel, SendChannel
from trio_multispool.clock import prioritized_names
from trio_multispool.codecs import Bytes, DataCodec, Json, MessagePack, MetadataCodec, Text
from trio_multispool.datafile import DataFile
from trio_multispool.durability import Durability
from trio_multispool.ends import ChannelAttribute, ChannelStatistics
from trio_multispool.entry import DirectEntry, Entry
from trio_multispool.errors import (
    AccessDenied,
    CorruptData,
    CorruptMetadata,
    DataNotFound,
    DirectoryNotEmpty,
    DurabilityUnknown,
    EncodingFailed,
    EntryBusy,
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
    StorageFailure,
    SyncsRefused,
    TooManyOpenFiles,
    UnreadableEntry,
    UnsupportedFormat,
    WorldWritable,
)
from trio_multispool.generators import Prioritized, TimeOrdered
from trio_multispool.handling import Handler
from trio_multispool.interval import every
from trio_multispool.job import CheckedOutEntry
from trio_multispool.names import NameGenerator, Reserve
from trio_multispool.reader import QueueReader
from trio_multispool.received import Received
from trio_multispool.reservation import ReservedName, Use
from trio_multispool.results import Err, Ok, Result
from trio_multispool.retention import Retention
from trio_multispool.retries import Backoff, Exponential, Retry
from trio_multispool.spool import Spool
from trio_multispool.spoolable import Spoolable
from trio_multispool.stats import Stat
from trio_multispool.storage.protocol import Recovered
from trio_multispool.ticks import Missed
from trio_multispool.verdicts import UNCHANGED, GiveUp, Release, Remove, RetryLater, Save, Unavailable, Verdict

__all__ = [
    "UNCHANGED",
    "AccessDenied",
    "Backoff",
    "Bytes",
    "ChannelAttribute",
    "ChannelStatistics",
    "CheckedOutEntry",
    "CorruptData",
    "CorruptMetadata",
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
    "EntryNotFound",
    "Err",
    "Exponential",
    "GiveUp",
    "Handler",
    "InvalidName",
    "Json",
    "MessagePack",
    "MetadataCodec",
    "Missed",
    "NameGenerator",
    "NameTaken",
    "NotARegularFile",
    "NotASpool",
    "NotAdopted",
    "Ok",
    "OutOfSpace",
    "OwnershipLost",
    "Prioritized",
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
    "Spoolable",
    "Stat",
    "StorageFailure",
    "SyncsRefused",
    "Text",
    "TimeOrdered",
    "TooManyOpenFiles",
    "Unavailable",
    "UnreadableEntry",
    "UnsupportedFormat",
    "Use",
    "Verdict",
    "WorldWritable",
    "every",
    "prioritized_names",
]
