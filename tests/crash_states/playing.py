"""Playing cases: in which directories, under which models, and what the checks say of the states."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crash_states.checking import Checker, Tally
from crash_states.enumeration import MODELS, crash_states
from crash_states.scene import QUEUES, Scene
from helpers.children import quick_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crash_states.cases import Case


class Theatre:
    """Where scenes are played and states are rebuilt; what became of a state is remembered for all cases."""

    def __init__(self, base: Path) -> None:
        """Use an empty directory."""
        self._base = base
        self._checkers: dict[tuple[str, ...], Checker] = {}

    def checker(self, queues: tuple[str, ...] = QUEUES) -> Checker:
        """Return the one that loads with these queues."""
        if queues not in self._checkers:
            self._checkers[queues] = Checker(self._directory(), queues=queues)
        return self._checkers[queues]

    def _directory(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._base))

    @contextlib.contextmanager
    def stages(self) -> Iterator[object]:
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
                recording = scene.recording
                states = crash_states(recording.initial, recording.records, model, start=scene.start)
                tally += self.checker(scene.queues).check(states)
        return tallies


@contextlib.contextmanager
def theatre(otherwise: Path) -> Iterator[Theatre]:
    """Open one in memory, where that is possible."""
    with quick_directory(otherwise) as directory:
        yield Theatre(directory)
