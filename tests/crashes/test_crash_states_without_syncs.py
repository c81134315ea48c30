"""That the check of crash states can fail: without any one of the syncs that `POWER` makes, states go bad."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from crash_states import cases, company
from crash_states.enumeration import MODELS
from crash_states.known import KNOWN, SPARE
from crash_states.playing import syncs_of, theatre
from helpers.proofs import thinned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crash_states.playing import Theatre

OPERATIONS = (
    "enqueue",
    "save changed",
    "save unchanged",
    "save in place",
    "save in place unchanged",
    "remove",
    "data save",
    "direct save",
    "direct remove",
    "direct data save",
)

BATCHES = tuple(name for name in cases.CASES if name.startswith("together:"))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Play all cases in one theatre, which examines each state once."""
    with theatre(tmp_path_factory.mktemp("crash")) as stage:
        yield stage


@pytest.mark.proof
@pytest.mark.parametrize("name", [*thinned(OPERATIONS, 4), *thinned(BATCHES, 6)])
def test_every_sync_is_needed(name: str, stage: Theatre) -> None:
    """Leaving out any single sync makes states bad under one of the models, but for the few in `SPARE`."""
    models = [model for model in MODELS if (name, model) not in KNOWN]
    spare: set[str] = set()
    for scene in stage.scenes(cases.CASES[name]):
        assert not stage.is_needed(scene, (), models)
        syncs = syncs_of(scene)
        assert syncs
        spare |= {words for number, words in syncs if not stage.is_needed(scene, {number}, models)}
    assert spare == {words for case, words in SPARE if case == name}


def test_every_sync_of_creating_a_spool_is_needed(stage: Theatre) -> None:
    """Some are made twice; leaving out all on one file or directory makes states bad."""
    for scene in stage.scenes(company.CASES["creating a spool"]):
        syncs = syncs_of(scene)
        for words in dict(reversed(each) for each in syncs):
            assert stage.is_needed(scene, {number for number, each in syncs if each == words}, MODELS), words


@pytest.mark.parametrize(
    ("words", "model"), [("sync send", "ordered"), ("sync .tmp/n", "ordered"), ("sync .data", "weak")]
)
def test_a_model_sees_what_it_is_made_to_see(words: str, model: str, stage: Theatre) -> None:
    """A journal keeps neither a rename nor a content that was not synced; the order of two is lost only without one."""
    [scene] = stage.scenes(cases.CASES["enqueue"])
    [number] = [number for number, each in syncs_of(scene) if each == words]
    assert stage.is_needed(scene, {number}, [model])
    assert not stage.is_needed(scene, (), MODELS)
