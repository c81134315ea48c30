"""Whose the files of a spool are: its owner's and its group's, whichever process makes them."""

from __future__ import annotations

import contextlib
import grp
import pwd
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from trio_multispool.clock import this_user

if TYPE_CHECKING:
    import os

ROOT: Final = 0
"""Who may read and give away everything."""
_AS_MADE: Final = -1
"""What `fchown` leaves as it is."""


class Owner(NamedTuple):
    """A user and a group to give a file to, by their numbers; -1 keeps what the file has."""

    user: int
    group: int

    def __str__(self) -> str:
        """Say whom, for a message: `app:mail`."""
        return f"{_user_name(self.user)}:{_group_name(self.group)}"

    @property
    def cure(self) -> str:
        """What a process can do that may not give files away."""
        if self.user != _AS_MADE:
            return f"the spool belongs to the user {_user_name(self.user)!r}: run this as that user"
        whose = f"the spool has the group {_group_name(self.group)!r}"
        return f"{whose}: run this as a member, or let the spool's directories pass it on (chmod g+s)"


def owner_of_new(spool: os.stat_result, user: int, group: int) -> Owner | None:
    """Return whom a process of this user and group must give new files; `None` if they are right as they are made.

    Only root can give files away. The group matters if it may do what others may not; root gives it in any case.
    """
    is_root, group_counts = user == ROOT, bool(spool.st_mode >> 3 & ~spool.st_mode & 0o7)
    found = Owner(
        spool.st_uid if is_root and spool.st_uid != user else _AS_MADE,
        spool.st_gid if (is_root or group_counts) and spool.st_gid != group else _AS_MADE,
    )
    return None if found == (_AS_MADE, _AS_MADE) else found


def is_handed_over(found: os.stat_result, spool: os.stat_result, mode: int) -> bool:
    """Tell whether a file of any user has the spool's group and a mode, and belongs to root only if the spool does."""
    is_roots = found.st_uid == ROOT != spool.st_uid
    return (found.st_gid, stat.S_IMODE(found.st_mode)) == (spool.st_gid, mode) and not is_roots


def is_half_made(found: os.stat_result, owner: Owner | None, mode: int) -> bool:
    """Tell whether a file is this user's, and has not been given to its owner, or has not got its mode."""
    user, group = (_AS_MADE, _AS_MADE) if owner is None else owner
    is_right = user in (_AS_MADE, found.st_uid) and group in (_AS_MADE, found.st_gid)
    return found.st_uid == this_user()[0] and not (is_right and stat.S_IMODE(found.st_mode) == mode)


def serves(found: os.stat_result, spool: os.stat_result, mode: int) -> bool:
    """Tell whether the owner of a spool, or that owner's group, may do with a file what `mode` says for an owner."""
    shift = 0 if found.st_uid == spool.st_uid else 3 if found.st_gid == spool.st_gid else 6
    return (found.st_mode << shift) & mode == mode


def _user_name(number: int) -> str:
    """Return the name of a user, or the number if there is no name."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return str(number)


def _group_name(number: int) -> str:
    """Return the name of a group, or the number if there is no name."""
    with contextlib.suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)


def in_words(found: os.stat_result) -> str:
    """Say who may do what with a file: `root:root, mode 600`."""
    return f"{Owner(found.st_uid, found.st_gid)}, mode {stat.S_IMODE(found.st_mode):o}"
