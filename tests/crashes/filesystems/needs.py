"""What this needs from the machine; said all at once, with the Debian package that brings each."""

from __future__ import annotations

import ctypes.util
import os
import shutil

_PROGRAMS = {
    "mount": "mount",
    "umount": "mount",
    "fallocate": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "btrfs": "btrfs-progs",
    "fusermount3": "fuse3",
}
_DEVICES = {"/dev/loop-control": "loop", "/dev/fuse": "fuse"}


def what_is_missing() -> list[str]:
    """Say what keeps this from running; empty if nothing does."""
    missing: list[str] = []
    if os.geteuid() != 0:
        missing.append("it needs root, to attach loop devices and to mount file systems on them")
    search = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    absent = [program for program in _PROGRAMS if shutil.which(program, path=search) is None]
    missing += [f"it needs {program}: apt-get install {_PROGRAMS[program]}" for program in absent]
    if "fusermount3" not in absent and ctypes.util.find_library("fuse3") is None:
        missing.append("it needs libfuse3: apt-get install fuse3")
    missing += [f"it needs {path}: modprobe {module}" for path, module in _DEVICES.items() if not os.path.exists(path)]
    return missing
