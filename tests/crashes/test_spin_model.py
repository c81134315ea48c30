"""The model of ownership names the functions that it stands for, and its mutants; this checks that they are all there.

Whether the model keeps its promises is for spin to say (`nox -s model`); this needs no spin.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import trio_multispool.storage.directory

MODEL = Path(__file__).parent / "spin"
STORAGE = Path(trio_multispool.storage.directory.__file__).parent
SOURCES = sorted(MODEL.glob("*.pml"))
TEXT = "".join(source.read_text() for source in SOURCES)

STANDS_FOR = {
    "locks.lock_existing",
    "locks.lock_new",
    "locks.lock_or_reserve",
    "locks.Lock.release",
    "enqueue.reserve",
    "enqueue.enqueue_together",
    "enqueue.give_up",
    "enqueue.clear_leftovers",
    "checkout.claim",
    "settle.save",
    "settle.release",
    "settle.remove",
    "recovery.recover",
    "recovery.sweep",
    "recovery.recover_name",
    "recovery.collect_if_nowhere",
    "remembered.begin",
    "remembered.finishing",
    "remembered.is_remembered",
    "remembered.collect",
    "waiting.where_to_wait",
}


def names_in_comments(text):
    """Return all dotted names in the comments of a model, but for those of files."""
    comments = re.findall(r"/\*.*?\*/", text, re.DOTALL)
    dotted = re.findall(r"(?<![\w./])[a-z]\w*(?:\.[A-Za-z_]\w*)+", " ".join(comments))
    return {name for name in dotted if not name.endswith((".py", ".pml"))}


def is_defined(name):
    """Tell whether a dotted name is a function, a class or a method of a module of the storage package."""
    module, *path = name.split(".")
    source = next(STORAGE.rglob(f"{module}.py"), None)
    if source is None:
        return False
    inside = ast.parse(source.read_text()).body
    for part in path:
        found = [node for node in inside if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]
        if not found:
            return False
        inside = found[0].body
    return True


@pytest.mark.parametrize("name", sorted(names_in_comments(TEXT)))
def test_what_a_step_stands_for_is_in_the_source(name):
    """Every function that the model names exists: whoever renames or moves one is sent to the model."""
    assert is_defined(name), f"the model in tests/crashes/spin/ names {name}, which storage/ does not have (any more)"


def test_every_operation_of_the_protocol_is_named():
    """The operations on an entry, and what they lock with, are all in the model."""
    assert names_in_comments(TEXT) >= STANDS_FOR


def test_a_name_that_is_not_there_is_found_out():
    """Neither a module, nor a function, nor a method that is missing passes; names of files are not taken for any."""
    assert names_in_comments("a.b /* c.d, `e.F._g` and h.py; not /tmp/i.j */") == {"c.d", "e.F._g"}
    assert is_defined("locks.Lock.release")
    assert not any(map(is_defined, ["latches.lock_existing", "locks.no_such_function", "locks.Lock.no_such_method"]))


def test_the_table_of_mutants_is_complete():
    """Every mutant that the model can be broken into is run, and every one that is run is in the model."""
    in_the_model = set(re.findall(r"^#.*\b(MUTANT_\w+)", TEXT, re.MULTILINE))
    in_the_table = re.findall(r"^\| `(MUTANT_\w+)` \|.*\| [\d ]+ \|$", (MODEL / "README.md").read_text(), re.MULTILINE)
    assert sorted(in_the_table) == sorted(in_the_model)
