"""Examining a spool for anything that is wrong. It writes nothing, and needs little memory.

Theory. Nearly all names of a spool are regular: in one place, with a reservation and data. A join of the listings of
all directories finds the irregular ones. A million entries must fit in memory. So the listings are streamed, and only
the 64-bit hash of each name is kept (8 bytes in an array; some 24 MB for a million entries, with their data and
reservations). The hashes are sorted into buckets, which are then joined one by one. A second stream over the
directories turns the irregular hashes into names. Two names with the same hash could hide a problem for the length of
one process. (The hashes of strings are salted, and this is likely only from a thousand million names on.) They cannot
invent a problem, because each name is then looked up on its own.

Listings of a spool in use contradict each other: entries move while they are read. So what they show is only
*suspected*, and `look_closely` looks at one name again, under its lock, twice. A process that follows the protocol
changes nothing without the lock. If the two looks differ, a process is at work that does not need the lock (`direct`,
`…_unsafe`), or a name without a reservation is moving. The order within a look matters, metadata before the
reservation: metadata that is the same file in both looks was there in between, when the reservation was not.
"""

from __future__ import annotations

import contextlib
import posixpath
import stat
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING, Final, final

import msgspec

from trio_multispool.errors import OF_ONE_FILE, AccessDenied, NotARegularFile, SpoolError
from trio_multispool.events import Event, log
from trio_multispool.model.names import invalid_name
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage import findings
from trio_multispool.storage.directory import remembered
from trio_multispool.storage.directory.disk.files import read_file
from trio_multispool.storage.directory.disk.layout import (
    CHECKOUT,
    FORMAT_FILE,
    LIMITS,
    QUARANTINE,
    REASONS,
    WAITING,
    directory_of,
)
from trio_multispool.storage.directory.disk.locks import lock_existing
from trio_multispool.storage.directory.disk.owners import in_words
from trio_multispool.storage.directory.notes import notes_and_fault
from trio_multispool.storage.findings import (
    CANCELLATIONS,
    DATA,
    NOTES,
    PAUSES,
    REGISTRY,
    REMEMBERED,
    TEMPORARY,
    Dir,
    Foreign,
    Holder,
    Kind,
    Shut,
    Spoilt,
    Temporary,
    why_no_due_time,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from trio_multispool.model.lifecycle import Place
    from trio_multispool.storage.directory.context import Context
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.findings import Finding, Findings, Judge, Loose, Trace, Wanted

_BUCKETS: Final = 256
_BREATH: Final = 1024
"""The number of names after which the caller may give up: reading them takes some milliseconds."""
_MAY_BE_SHUT: Final = (NOTES.path, REMEMBERED.path, CANCELLATIONS.path, PAUSES.path, QUARANTINE, REASONS)
"""Directories beside the places that hide nothing if they cannot be read, or if something else is in their place."""
_OURS: Final = {REGISTRY.path, TEMPORARY.path, DATA.path, *_MAY_BE_SHUT}
_MAKING: Final = FORMAT_FILE + ".new"
_KINDS_OF_FILE: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFREG: "a file",
}


def examine(context: Context, wanted: Wanted, judge: Judge) -> Iterator[Finding | None]:
    """Yield everything that may be wrong, each at most once, and `None` after every `_BREATH` names."""
    survey, shut = _Survey(context, wanted, judge), dict[str, SpoolError]()
    places = context.layout.places(shut=shut)
    for directory in sorted({*shut, *map(directory_of, places), *_MAY_BE_SHUT}):
        found = _shut(context.layout, directory)
        if found is not None:
            yield found
    yield from survey.read(places)
    yield from survey.suspects(places)


_Buckets = defaultdict[int, "array[int]"]
"""The hashes of the names in one directory."""


def _irregular(listed: Mapping[Dir, _Buckets]) -> set[int]:
    """Return the hashes of all names that are not in exactly one place, with a reservation and data."""
    places = [(directory.kind, buckets) for directory, buckets in listed.items() if directory.place is not None]
    found: set[int] = set()
    for bucket in range(_BUCKETS):
        entries, attached = set[int](), set[int]()
        for kind, buckets in places:
            names = set(buckets[bucket])
            found |= entries & names
            entries |= names
            if kind is not Kind.QUARANTINE:
                attached |= names
        reserved, data, notes = (set(listed[directory][bucket]) for directory in (REGISTRY, DATA, NOTES))
        found |= (entries ^ reserved) | (data - entries) | (attached - data) | (notes - entries)
    return found


@final
class _Survey:
    """One examination, with what it has found so far."""

    def __init__(self, context: Context, wanted: Wanted, judge: Judge) -> None:
        self._context = context
        self._layout: Layout = context.layout
        self._wanted = wanted
        self._judge = judge
        self._listed: defaultdict[Dir, _Buckets] = defaultdict(lambda: defaultdict(lambda: array("q")))
        self._names = set(wanted.names)

    def read(self, places: Sequence[Place]) -> Iterator[Finding | None]:
        """Read all directories; yield files that belong to no entry, and `None` now and then."""
        yield from self._foreign_at_the_top()
        for directory in (*map(Dir.of, places), DATA, NOTES, REGISTRY):
            yield from self._read_names(directory)
        for directory in (NOTES, REMEMBERED):
            yield from self._read_beside(directory)
        for name, is_file, _ in _listed(self._layout, TEMPORARY):
            found = _looked_at(self._layout, TEMPORARY, name)
            if found is not None:
                yield Temporary(name, found.st_mtime) if is_file else _foreign(TEMPORARY, name, found)

    def suspects(self, places: Sequence[Place]) -> Iterator[Finding | None]:
        """Yield the findings on each name that is irregular or otherwise of interest, and `None` now and then."""
        hashes = _irregular(self._listed) - {hash(name) for name in self._names}
        if hashes:
            for directory in (*map(Dir.of, places), DATA, NOTES, REGISTRY):
                for number, (name, _, _) in enumerate(_listed(self._layout, directory), 1):
                    if number % _BREATH == 0:
                        yield None
                    if hash(name) in hashes and invalid_name(name) is None:
                        self._names.add(name)
        for name in sorted(self._names):
            yield _findings(self._context, name, places, self._judge)

    def _foreign_at_the_top(self) -> Iterator[Foreign]:
        for directory in (Dir(Kind.SPOOL), Dir(Kind.QUARANTINE)):
            for name, is_file, is_directory in _listed(self._layout, directory):
                if is_directory and (invalid_name(name) is None or _is_ours(directory, name)):
                    continue  # a queue, its quarantine, or one of the spool's own directories
                if not (is_file and directory.kind is Kind.SPOOL and name in (FORMAT_FILE, _MAKING, LIMITS)):
                    yield from self._if_foreign(directory, name)
        for directory in (Dir(Kind.REASONS), REMEMBERED, CANCELLATIONS, PAUSES):
            for name, is_file, _ in _listed(self._layout, directory):
                if not is_file or invalid_name(name) is not None:
                    yield from self._if_foreign(directory, name)

    def _if_foreign(self, directory: Dir, name: str) -> Iterator[Foreign]:
        found = _looked_at(self._layout, directory, name)
        if found is not None:
            yield _foreign(directory, name, found)

    def _read_names(self, directory: Dir) -> Iterator[Foreign | None]:
        buckets = self._listed[directory]
        for number, (name, is_file, is_directory) in enumerate(_listed(self._layout, directory), 1):
            if number % _BREATH == 0:
                yield None
            if not is_file or invalid_name(name) is not None:
                if not self._is_known(directory, name, is_file=is_file, is_directory=is_directory):
                    yield from self._if_foreign(directory, name)
                continue
            hashed = hash(name)
            buckets[hashed % _BUCKETS].append(hashed)
            if directory.kind is Kind.CHECKOUT or self._is_of_interest(directory, name):
                self._names.add(name)

    def _read_beside(self, directory: Dir) -> Iterator[Spoilt | None]:
        """Yield what lies beside entries and cannot be read, and `None` now and then."""
        since = self._wanted.judged_since
        for number, (name, is_file, _) in enumerate(_listed(self._layout, directory), 1):
            if number % _BREATH == 0:
                yield None
            if not is_file or invalid_name(name) is not None:
                continue
            if since and name not in self._wanted.names:
                found = _looked_at(self._layout, directory, name)
                if found is None or found.st_ctime < since:
                    continue
            spoilt = _spoilt(self._context, directory, name)
            if spoilt is not None:
                yield spoilt

    @staticmethod
    def _is_known(directory: Dir, name: str, *, is_file: bool, is_directory: bool) -> bool:
        if directory.kind is Kind.NOTES:  # notes that are being written may lie there under another name
            return is_file and name.startswith(".")
        return directory.kind is Kind.QUEUE and is_directory and _is_ours(directory, name)

    def _is_of_interest(self, directory: Dir, name: str) -> bool:
        """Tell whether a file cannot be read, or an entry has been available, or due, for too long.

        Or whether it waits until a time that cannot be meant, or is available and cannot be decoded. An entry that
        waits is not judged before it is due: then a reader takes it, and sets it aside.
        """
        waits, since = directory.kind is Kind.WAITING, self._wanted.judged_since
        is_queued = waits or directory.kind is Kind.QUEUE
        before = self._wanted.modified_before.get(directory.queue) if is_queued else None
        if waits or since or before is not None:
            found = _looked_at(self._layout, directory, name)
            if found is None:
                return False
            if before is not None and found.st_mtime < before:
                return True
            if waits and why_no_due_time(found.st_mtime, found.st_ctime) is not None:
                return True
            if found.st_ctime < since:  # it has been asked
                return False
        if not self._layout.may_read(directory.path, name):
            return True
        is_judged = directory.kind is Kind.QUEUE and directory.queue in self._wanted.judged
        return is_judged and _fault(self._context, directory, name, self._judge) is not None


def _path(directory: Dir) -> str:
    return "" if directory.kind is Kind.SPOOL else directory.path


def _listed(layout: Layout, directory: Dir) -> Iterator[tuple[str, bool, bool]]:
    """Stream the names in a directory; none if it is missing, or is told as `Shut` or `Foreign`."""
    path = _path(directory)
    if not _is_there(layout, path):
        return
    with layout.doing("list", path), layout.fresh_fd(path) as fd:
        yield from layout.calls.scan(fd)


def _is_there(layout: Layout, path: str) -> bool:
    return layout.is_open(path, {} if path in _MAY_BE_SHUT else None)


def _looked_at(layout: Layout, directory: Dir, name: str) -> os.stat_result | None:
    return layout.look_at(_path(directory), name)


def _foreign(directory: Dir, name: str, found: os.stat_result) -> Foreign:
    fault = invalid_name(name)
    kind = stat.S_IFMT(found.st_mode)
    what = _KINDS_OF_FILE.get(kind, "a device")
    is_ours = _is_ours(directory, name)  # a file in the place of a directory
    if kind == stat.S_IFREG and fault is not None and directory.kind is not Kind.SPOOL and not is_ours:
        what = f"no name: {fault.reason}"
    return Foreign(directory, name, found.st_ctime, what)


def _is_ours(directory: Dir, name: str) -> bool:
    """Tell whether a directory of that name belongs there."""
    if directory.kind is Kind.QUEUE:
        return name in (CHECKOUT, WAITING)
    return directory.place is None and posixpath.join(_path(directory), name) in _OURS


def _fault(context: Context, directory: Dir, name: str, judge: Judge) -> str | None:
    """Return why an available entry's metadata cannot be decoded; `None` also if it cannot be read, or is gone."""
    try:
        return judge(directory.queue, read_file(context.layout, directory.path, name))
    except FileNotFoundError:
        return None
    except OF_ONE_FILE as error:
        if not context.is_news(directory.path, name):
            return None
        spool = context.layout.path
        message = "not judged: metadata of entry %(entry)s of spool %(spool)s: %(error)s"
        log(context.log.warning, Event.NOT_JUDGED, spool, message, entry=name, error=error)
        return None


def _findings(
    context: Context, name: str, places: Sequence[Place], judge: Judge, holder: Holder = Holder.NOT_ASKED
) -> Findings:
    """Look a name up in all directories, the reservation last."""
    found: list[Trace] = []
    for directory in (*map(Dir.of, places), DATA, NOTES, REGISTRY):
        looked_at = _looked_at(context.layout, directory, name) if _is_there(context.layout, directory.path) else None
        if looked_at is None or not stat.S_ISREG(looked_at.st_mode):
            continue
        fault = _fault(context, directory, name, judge) if directory.kind is Kind.QUEUE else None
        shut_by = None if context.layout.may_read(directory.path, name) else in_words(looked_at)
        found.append(
            findings.Trace(directory, looked_at.st_mtime, looked_at.st_ctime, looked_at.st_ino, fault, shut_by)
        )
    return findings.Findings(name, tuple(found), holder)


def look_closely(context: Context, name: str, judge: Judge) -> Findings:
    """Look a name up under its lock, if it has one. Look twice, to see whether its files are moving all the same.

    Where this process may not read the reservation, or a directory in which the entry may lie, it counts as held:
    what cannot be seen is not missing.
    """
    layout, shut = context.layout, dict[str, SpoolError]()
    if not context.is_adopted():
        return _twice(context, name, judge, Holder.UNTOLD)
    with _locked(layout, name) as unavailable:
        if unavailable is Unavailable.BUSY:
            return _findings(context, name, layout.places(shut=shut), judge, Holder.SOMEBODY)
        return _twice(context, name, judge, Holder.NO_RESERVATION if unavailable else Holder.NOBODY)


@contextlib.contextmanager
def _locked(layout: Layout, name: str) -> Generator[Unavailable | None]:
    """Lock a name for a block, or yield why not. A reservation that this process may not read counts as held."""
    try:
        lock = lock_existing(layout, name)
    except NotARegularFile:
        lock = Unavailable.GONE
    except AccessDenied:
        lock = Unavailable.BUSY
    if isinstance(lock, Unavailable):
        yield lock
        return
    try:
        yield None
    finally:
        lock.release()


def _twice(context: Context, name: str, judge: Judge, holder: Holder) -> Findings:
    layout, shut = context.layout, dict[str, SpoolError]()
    first, second = (_findings(context, name, layout.places(shut=shut), judge, holder) for _ in range(2))
    is_seen = not shut or any(file.dir.place is not None for file in second.files)
    return second if is_seen and first == second else msgspec.structs.replace(second, holder=Holder.SOMEBODY)


def _spoilt(context: Context, directory: Dir, name: str) -> Spoilt | None:
    """Read what lies beside an entry; return why it cannot be read."""
    found = _looked_at(context.layout, directory, name)
    if found is None:
        return None
    fault = notes_and_fault(context.layout, name)[1] if directory == NOTES else remembered.fault_of(context, name)
    return None if fault is None else Spoilt(directory, name, found.st_ctime, fault)


def _spoilt_for_sure(context: Context, spoilt: Spoilt) -> Spoilt | None:
    """Read a file again when nobody can be in the middle of writing it: its entry is in a place, or has no owner.

    Notes without an entry are orphans, whatever is in them. An entry that cannot be seen is in no place here.
    """
    layout, name = context.layout, spoilt.name
    with _locked(layout, name) as unavailable:
        if not _is_seen(layout, name) and (spoilt.dir == NOTES or unavailable is Unavailable.BUSY):
            return None
        found = _spoilt(context, spoilt.dir, name)
        is_new = unavailable is Unavailable.GONE and layout.holds(REGISTRY.path, name)
        return None if is_new else found


def _is_seen(layout: Layout, name: str) -> bool:
    """Tell whether an entry is in a place that can be seen."""
    try:
        return bool(layout.places_of(name))
    except OF_ONE_FILE:
        return False


def _shut(layout: Layout, path: str) -> Shut | None:
    """Look at a directory that this process may not read or enter; `None` if it is none, or may be entered by now."""
    above, _, name = path.rpartition("/")
    try:
        found = layout.look_at(above, name)
    except OF_ONE_FILE:  # then the one above is told
        return None
    if found is None or not stat.S_ISDIR(found.st_mode) or layout.may_enter(above, name):
        return None
    parent = Dir(Kind.QUARANTINE) if above == QUARANTINE else Dir(Kind.QUEUE, above) if above else Dir(Kind.SPOOL)
    return Shut(parent, name, found.st_ctime, in_words(found))


def look_again(context: Context, finding: Loose) -> Loose | None:
    """Look once more at a file that is judged by itself; `None` if it is gone, or if nothing is wrong with it."""
    if isinstance(finding, Spoilt):
        return _spoilt_for_sure(context, finding)
    if isinstance(finding, Shut):
        return _shut(context.layout, posixpath.join(_path(finding.dir), finding.name))
    directory = TEMPORARY if isinstance(finding, Temporary) else finding.dir
    found = _looked_at(context.layout, directory, finding.name)
    if found is None:
        return None
    if isinstance(finding, Temporary):
        return Temporary(finding.name, found.st_mtime)
    again = _foreign(directory, finding.name, found)
    return again if again.what == finding.what else None
