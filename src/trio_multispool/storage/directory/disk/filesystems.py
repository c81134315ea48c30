"""The file systems that are known to keep local locks and renames. They are accepted without `trust_file_system`."""

from __future__ import annotations

from typing import Final

LOCAL: Final = {
    0xEF53: "ext4",
    0x58465342: "XFS",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlayfs",
    0x2FC12FC1: "ZFS",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x3153464A: "JFS",
    0x3434: "NILFS2",
}
"""By the `f_type` of `statfs(2)`; the numbers are those of `linux/magic.h` and of the file systems' own sources."""

_OTHERS: Final = {
    0x6969: "NFS",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x517B: "SMB",
    0x65735546: "FUSE",
    0x01021997: "9p",
    0x00C36400: "Ceph",
    0x6A656A63: "virtiofs",
    0x0BD00BD0: "Lustre",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0x47504653: "GPFS",
    0x5346414F: "AFS",
    0x4D44: "FAT",
    0x2011BAB0: "exFAT",
}


def is_known_local(kind: int | None) -> bool:
    """Tell whether a file system with that `f_type` is local to this host. `None` (not Linux) is taken for local."""
    return kind is None or kind in LOCAL


def file_system_name(kind: int | None) -> str:
    """Return the name of a file system, for messages."""
    if kind is None:
        return "an unknown file system"
    return LOCAL.get(kind) or _OTHERS.get(kind) or f"a file system of type {kind:#x}"
