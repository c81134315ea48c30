"""Loop devices and mounts. All of it is seen by this process alone, and goes when it dies, however it dies.

The mounts are made in a mount namespace of our own. A loop device is attached with `LO_FLAGS_AUTOCLEAR`: it detaches
itself when nobody has it open any more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filesystems.images import Image
from helpers import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from filesystems.kinds import Kind

_LOOP_CTL_GET_FREE = 0x4C82  # linux/loop.h
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CLR_FD = 0x4C01
_LO_FLAGS_AUTOCLEAR = 4
_LOOP_CONFIG = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 64x")
_TRIES = 64


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty directory in memory, which only this process and its children see."""
    mounts.enter_private()
    with tempfile.TemporaryDirectory(prefix="trio-multispool-") as directory:
        mounts.tmpfs(directory)
        try:
            yield Path(directory)
        finally:
            run("umount", "--recursive", "--lazy", directory)  # a mount that was interrupted may be left below it


@contextlib.contextmanager
def attached(file: Path) -> Iterator[Path]:
    """Attach a loop device to a file; yield the device."""
    device = _attach(file)
    try:
        yield Path(f"/proc/self/fd/{device}").readlink()
    finally:
        with contextlib.suppress(OSError):  # it clears itself at the close below
            fcntl.ioctl(device, _LOOP_CLR_FD)
        os.close(device)


def _attach(file: Path) -> int:
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    name = os.fsencode(file)[-63:]
    try:
        for _ in range(_TRIES):
            device = os.open(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}", os.O_RDWR | os.O_CLOEXEC)
            flags = (0, 0, 0, _LO_FLAGS_AUTOCLEAR)
            try:
                config = _LOOP_CONFIG.pack(backing, 0, 0, 0, 0, 0, 0, *flags, name, b"", b"", 0, 0)
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else was quicker to take the free one
                    raise
            else:
                return device
        raise OSError(errno.EBUSY, "no loop device is free")
    finally:
        os.close(control)
        os.close(backing)


@contextlib.contextmanager
def mounted(kind: Kind, file: Path, directory: Path, *, by_page: bool = False) -> Iterator[Path]:
    """Mount the file system in a file; yield the directory that it is mounted on.

    With `by_page`, the device writes no more than a page at a time.
    """
    with attached(file) as device, writing_by_page(device) if by_page else contextlib.nullcontext():
        try:
            try:
                run("mount", "-t", kind.name, "-o", kind.options, os.fspath(device), os.fspath(directory))
            except OSError as error:
                raise OSError(f"{error}; {_what_is_wrong(kind, file)}") from error
            try:
                yield directory
            finally:
                unmount(directory)
        finally:
            if kind.name == "btrfs":  # the kernel remembers its devices, and takes no older copy for a newer one
                command = ["btrfs", "device", "scan", "--forget", os.fspath(device)]
                subprocess.run(command, capture_output=True, check=False)


@contextlib.contextmanager
def writing_by_page(device: Path) -> Iterator[None]:
    """Let a device write no more than a page at a time; a loop device would keep that for whoever has it next."""
    limit = Path("/sys/block", device.name, "queue/max_sectors_kb")
    usual = limit.read_text()
    limit.write_text("4")
    try:
        yield
    finally:
        limit.write_text(usual)


def _what_is_wrong(kind: Kind, file: Path) -> str:
    """Say what the file system's own tool finds on a device that cannot be mounted: it, or whoever made the image."""
    done = subprocess.run([*kind.check, os.fspath(file)], capture_output=True, text=True, check=False)
    return f"{kind.check[0]} ends with {done.returncode}: {' '.join((done.stdout + done.stderr).split())}"


def make(kind: Kind, file: Path) -> None:
    """Make an empty file system in a file."""
    with open(file, "wb") as image:
        image.truncate(kind.size)
    run(*kind.make, os.fspath(file))
    Image.read(file).write(file)  # without the zeros, which mkfs.xfs writes by the megabyte


def unmount(directory: Path) -> None:
    """Unmount what is mounted on a directory."""
    run("umount", os.fspath(directory))


def run(*command: str) -> None:
    """Run a command, and say what it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
