"""Mounts that only this process sees, for code that `run_python` runs; they go when the process ends."""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
import shutil
import subprocess

from helpers.processes import run_python

_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_NEW_USER = 0x10000000  # CLONE_NEWUSER
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


@functools.cache
def why_not() -> str:
    """Say why this process may not mount anything; empty if it may."""
    tried = run_python("import helpers.mounts as mounts; mounts.enter_private()", check=False)
    return "" if tried.returncode == 0 else "needs CAP_SYS_ADMIN, or user namespaces, to mount file systems"


def enter_private() -> None:
    """Take this process to a mount namespace of its own, with the right to mount."""
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(_NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USER))
    if user != 0:
        pathlib.Path("/proc/self/setgroups").write_text("deny")
        pathlib.Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        pathlib.Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)


def tmpfs(path: str | os.PathLike[str], *options: str) -> None:
    """Mount an empty tmpfs, of mode 0700, with limits such as `size=1m` and `nr_inodes=100`."""
    _mount("none", path, "tmpfs", 0, ",".join(["mode=700", *options]))


def resize(path: str | os.PathLike[str], size: str) -> None:
    """Let a tmpfs have more room, or less."""
    _mount(None, path, None, _REMOUNT, f"size={size}")


def btrfs_with_quota(path: pathlib.Path, limit: str) -> None:
    """Mount an empty btrfs, which may hold so much, from an image beside it; its loop device goes with the mount."""
    image = path.with_name("image")
    with image.open("wb") as file:
        file.truncate(128 << 20)
    for command in (
        ["mkfs.btrfs", "-q", "-M", image],
        ["mount", "-o", "loop", image, path],
        ["btrfs", "-q", "quota", "enable", path],
        ["btrfs", "-q", "qgroup", "limit", limit, path],
    ):
        _ = subprocess.run(command, check=True)
    path.chmod(0o700)


@functools.cache
def why_no_btrfs() -> str:
    """Say why this process cannot mount one; empty if it can."""
    if os.geteuid() != 0:
        return "needs root to mount an image"
    missing = [tool for tool in ("mkfs.btrfs", "btrfs", "mount") if shutil.which(tool) is None]
    if missing:
        return f"needs {' and '.join(missing)} to make and mount a btrfs image"
    known = "btrfs" in pathlib.Path("/proc/filesystems").read_text()
    return "" if known and os.path.exists("/dev/loop-control") else "needs a kernel with btrfs and loop devices"


def writable(path: str | os.PathLike[str]) -> None:
    """Make it writable again."""
    _mount(None, path, None, _REMOUNT)


def bind(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Mount a directory a second time."""
    _mount(os.fspath(source), path, None, _BIND)


def read_only(path: str | os.PathLike[str]) -> None:
    """Make a mount read-only."""
    _mount(None, path, None, _REMOUNT | _READ_ONLY)


def _mount(source: str | None, path: str | os.PathLike[str], kind: str | None, flags: int, data: str = "") -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, path, kind)]
    _check(_libc.mount(*encoded, ctypes.c_ulong(flags), data.encode() or None))


def _check(answer: int) -> None:
    if answer != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
