"""The file systems: how small each can be made, and how it is mounted."""

from __future__ import annotations

import dataclasses

_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Kind:
    """A file system that a spool is tried on."""

    name: str
    size: int
    """Of the device, in bytes."""
    make: tuple[str, ...]
    """The command that makes it, but for the file."""
    options: str
    """To mount it with."""
    check: tuple[str, ...]
    """The command that says what is wrong with it, and changes nothing, but for the file."""


EXT4 = Kind(
    "ext4",
    24 * _MIB,
    ("mkfs.ext4", "-q", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "rw",
    ("e2fsck", "-fn"),
)

XFS = Kind("xfs", 300 * _MIB, ("mkfs.xfs", "-q", "-K", "-s", "size=4096"), "rw,nouuid", ("xfs_repair", "-n"))
"""mkfs refuses less than 300 MiB. A copy has the UUID of its original, which XFS would refuse to mount beside it."""

BTRFS = Kind("btrfs", 112 * _MIB, ("mkfs.btrfs", "-q", "-K"), "rw,nodiscard", ("btrfs", "check"))
"""mkfs refuses less than 109 MiB. Discards would only tell the device what is free."""

# All of them write whole pages: see `failing`.
KINDS = {kind.name: kind for kind in (EXT4, XFS, BTRFS)}
