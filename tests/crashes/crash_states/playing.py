"""Playing cases: in which directories, under which models, and what the checks say of the states."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crash_states.checking import Checker, Tally, loads
from crash_states.disk import Sync
from crash_states.enumeration import MODELS, crash_states
from crash_states.recording import Recording, RecordingCalls
from crash_states.scene import QUEUES, WHERE, Scene
from helpers.children import quick_directory
from helpers.stores import sweep
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from crash_states.cases import Case, Stage
    from crash_states.disk import Disk, Record, Tree
    from crash_states.enumeration import States


class Theatre:
    """Where scenes are played and states are rebuilt; what became of a state is remembered."""

    def __init__(self, base: Path) -> None:
        """Use an empty directory."""
        self._base = base
        self._checkers: dict[tuple[str, ...], Checker] = {}
        self._left: dict[tuple[tuple[str, ...], Tree], dict[str, list[Tree]]] = {}
        self._trees: dict[Tree, Tree] = {}
        """Each tree that a recovery may leave, so that it is kept once."""

    def checker(self, queues: tuple[str, ...] = QUEUES) -> Checker:
        """Return the one that loads with these queues."""
        if queues not in self._checkers:
            self._checkers[queues] = Checker(self._directory(), queues=queues)
        return self._checkers[queues]

    def _directory(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._base))

    @contextlib.contextmanager
    def stages(self) -> Iterator[Stage]:
        """Yield what makes scenes, and close them."""
        scenes: list[Scene] = []

        def stage(before: Scene | None = None, **options: object) -> Scene:
            scene = Scene(self._directory() if before is None else before.path.parents[1], before, **options)
            scenes.append(scene)
            return scene

        try:
            yield stage
        finally:
            for scene in scenes:
                scene.close()

    def scenes(self, case: Case) -> Iterator[Scene]:
        """Play a case."""
        with self.stages() as stage:
            yield from case(stage)

    def play(self, case: Case) -> dict[str, Tally]:
        """Play a case, and check every state of it; return the tallies by model."""
        tallies = {model: Tally() for model in MODELS}
        for scene in self.scenes(case):
            for model, tally in tallies.items():
                tally.add(self.checker(scene.queues).check(states_of(scene, model)))
        return tallies

    def play_recovery(self, case: Case) -> dict[str, Tally]:
        """Play a case, recover from every state of it, and check every state that power loss leaves of *that*."""
        tallies = {model: Tally() for model in MODELS}
        for scene in self.scenes(case):
            for model, tally in tallies.items():
                again: States = {}
                for tree, expected in states_of(scene, model).items():
                    for left in self._left_of_recovery(tree, scene.queues)[model]:
                        again.setdefault(left, set()).update(expected)
                tally.add(self.checker(scene.queues).check(again))
        return tallies

    def _left_of_recovery(self, tree: Tree, queues: tuple[str, ...]) -> dict[str, list[Tree]]:
        """Recover from a tree, once for all cases; return what power loss may leave of that, by model."""
        found = self._left.get((queues, tree))
        if found is None:
            recording = self._recorded_recovery(self.checker(queues).rebuilt(tree), queues)
            found = self._left[queues, tree] = {
                model: [self._trees.setdefault(left, left) for left in crash_states(*recording, model)]
                for model in MODELS
            }
        return found

    @staticmethod
    def _recorded_recovery(directory: Path, queues: tuple[str, ...]) -> tuple[Disk, Sequence[Record]]:
        recording = Recording(directory)
        create, calls = not loads(directory / WHERE, queues), RecordingCalls(recording)
        store = DirectoryStorage.open(directory / WHERE, queues, create=create, calls=calls)
        _ = store.recover()
        _ = sweep(store)
        store.close()
        shutil.rmtree(directory)
        return recording.initial, recording.records

    def without(self, scene: Scene, left_out: Collection[int]) -> dict[str, int]:
        """Return how many states are bad, by model, if some records had not been made."""
        return {model: len(self.checker(scene.queues).check(states_of(scene, model, left_out)).bad) for model in MODELS}

    def is_needed(self, scene: Scene, left_out: Collection[int], models: Iterable[str]) -> bool:
        """Tell whether any state is bad, under any of these models, if some records had not been made."""
        checker = self.checker(scene.queues)
        return any(any(checker.bad(states_of(scene, model, left_out))) for model in models)


def states_of(scene: Scene, model: str, left_out: Collection[int] = ()) -> States:
    """Return the states of a scene after its beginning, without some of its records."""
    records = scene.recording.records
    start = sum(number not in left_out for number in range(scene.start))
    kept = [record for number, record in enumerate(records) if number not in left_out]
    return crash_states(scene.recording.initial, kept, model, start=start)


def syncs_of(scene: Scene) -> list[tuple[int, str]]:
    """Return the syncs after a scene's beginning, each by its number and in words."""
    numbered = list(enumerate(scene.recording.records))[scene.start :]
    return [(number, record.words.replace(f"{WHERE}/", "")) for number, record in numbered if isinstance(record, Sync)]


@contextlib.contextmanager
def theatre(otherwise: Path) -> Iterator[Theatre]:
    """Open one in memory, where that is possible."""
    with quick_directory(otherwise) as directory:
        yield Theatre(directory)
