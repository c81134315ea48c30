"""What can be imported, how it is documented, and what importing it brings along."""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import inspect
import pkgutil
import re
import textwrap
from typing import TYPE_CHECKING

import pytest

import trio_multispool
from helpers.processes import run_python
from helpers.spools import MAIL, Mail
from trio_multispool import AccessDenied, NameTaken, NotARegularFile, SpoolError, errors, model, storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROMISED = [
    "Spool",
    "Spoolable",
    "Entry",
    "CheckedOutEntry",
    "DataFile",
    "QueueReader",
    "Ok",
    "Err",
    "Result",
    "Save",
    "Remove",
    "Release",
    "Verdict",
    "Reserve",
    "Use",
    "Unavailable",
    "Durability",
    "SpoolError",
    "EntryNotFound",
    "EntryBusy",
    "NameTaken",
    "InvalidName",
    "NotASpool",
    "DirectoryNotEmpty",
    "CorruptMetadata",
    "CorruptData",
    "OutOfSpace",
    "StorageFailure",
    "OwnershipLost",
    "DurabilityUnknown",
    "Json",
    "MessagePack",
    "Bytes",
    "Text",
    "DataCodec",
    "MetadataCodec",
    "NameGenerator",
    "TimeOrdered",
    "ReservedName",
    "Stat",
    "UNCHANGED",
]


def public_classes() -> Iterator[type]:
    """Yield the classes that the package exports."""
    for name in trio_multispool.__all__:
        value = getattr(trio_multispool, name)
        if isinstance(value, type):
            yield value


def public_functions() -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the functions that these classes define, under names without an underscore."""
    for owner in public_classes():
        for name, value in vars(owner).items():
            function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            if inspect.isfunction(function) and not name.startswith("_"):
                yield f"{owner.__name__}.{name}", function


FUNCTIONS = dict(public_functions())
# The ends of a channel are AnyIO streams: they raise, as that contract says, and have no results.
STREAMS = ("SendChannel.", "ReceiveChannel.")
OPERATIONS = {
    name: function
    for name, function in FUNCTIONS.items()
    if inspect.iscoroutinefunction(function) and not name.startswith(STREAMS)
}
every_operation = pytest.mark.parametrize("name", OPERATIONS)

CHANGING = {
    "Spool.cancel",
    "Spool.pause",
    "Spool.resume",
    "Spool.create",
    "Spool.load",
    "Spool.load_unsafe",
    "Spool.enqueue",
    "Spool.enqueue_many",
    "Spool.enqueue_if_absent",
    "Spool.expire",
    "Spool.waiting",
    "Spool.reserve_name",
    "Spool.with_entry",
    "Spool.try_with_entry",
    "Spool.recover",
    "Spool.adopt",
    "Entry.checkout",
    "Entry.try_checkout",
    "DirectEntry.save",
    "DirectEntry.remove",
    "CheckedOutEntry.save",
    "CheckedOutEntry.remove",
    "CheckedOutEntry.release",
    "CheckedOutEntry.progress",
    "DataFile.save",
    "DataFile.progress",
    "QueueReader.dequeue",
    "QueueReader.dequeue_available",
    "QueueReader.iter",
    "QueueReader.iter_available",
}
READING = {
    "Spool.entries",
    "Spool.find",
    "Spool.pauses",
    "Spool.wait",
    "Spool.waiting",
    "Spool.checkouts_unsafe",
    "Entry.stat",
    "DirectEntry.contents",
    "DataFile.load",
    "DataFile.stat",
}


# Names


def test_the_version_is_that_of_the_installed_package():
    """It stands in one place, `pyproject.toml`; and no other name is made up."""
    assert trio_multispool.__version__ == importlib.metadata.version("trio-multispool")
    assert not hasattr(trio_multispool, "__release__")


def test_a_library_that_is_not_installed_has_no_version(monkeypatch):
    """It runs from a source tree all the same."""
    monkeypatch.setattr(importlib.metadata, "version", _not_installed)
    assert trio_multispool.__version__ == "unknown (not installed)"


def _not_installed(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


def test_classes_that_are_not_called_say_what_is():
    """The first thing that a newcomer may write is answered with what to write."""
    with pytest.raises(TypeError, match=r"Spool\.create\(path, spoolable\)"):
        trio_multispool.Spool("mail", MAIL)
    with pytest.raises(TypeError, match=r"spool\.reader\(queue\)"):
        trio_multispool.QueueReader("mail", Mail.SEND)


@pytest.mark.parametrize("name", trio_multispool.__all__)
def test_everything_that_is_listed_can_be_imported(name):
    """`__all__` tells the truth, and everything in it is documented."""
    value = getattr(trio_multispool, name)
    if isinstance(value, type):
        assert inspect.getdoc(value)


def test_every_public_name_of_the_package_is_listed():
    """Nothing is importable from the package by accident, modules excepted."""
    public = {n for n, v in vars(trio_multispool).items() if not n.startswith("_") and not inspect.ismodule(v)}
    assert public - {"annotations"} == set(trio_multispool.__all__)
    assert trio_multispool.__all__ == sorted(set(trio_multispool.__all__), key=lambda n: (not n.isupper(), n))


@pytest.mark.parametrize("name", PROMISED)
def test_what_code_outside_relies_on_is_there(name):
    """These names are a promise to other programs."""
    assert name in trio_multispool.__all__


def test_the_operations_are_those_that_were_agreed_on():
    """No public operation is missing, and none has come without a test here that says what kind it is."""
    assert set(OPERATIONS) == CHANGING | READING


def test_the_parameters_that_others_rely_on_are_there():
    """Names and kinds of parameters, where calls outside use them."""

    def parameters(function: Callable[..., object]) -> dict[str, bool]:
        return {
            name: parameter.kind is parameter.KEYWORD_ONLY
            for name, parameter in inspect.signature(function).parameters.items()
            if name not in ("self", "cls")
        }

    spool, reader = trio_multispool.Spool, trio_multispool.QueueReader
    assert parameters(spool.enqueue) == {
        "queue": False,
        "metadata": False,
        "data": False,
        "name": True,
        "not_before": True,
        "durability": True,
    }
    assert {"path": False, "spoolable": False, "limiter": True, "durability": True}.items() <= parameters(
        spool.create
    ).items()
    assert parameters(spool.load)["create_if_missing"] is True
    assert parameters(reader.iter)["concurrency"] is True
    assert parameters(reader.iter_available)["concurrency"] is True
    assert list(parameters(trio_multispool.Spoolable.__init__)) == ["queues", "metadata", "data", "names"]
    assert list(parameters(trio_multispool.CheckedOutEntry.save))[:2] == ["queue", "metadata"]


# Docstrings


def paragraphs(name: str) -> str:
    """Return the docstring of an operation."""
    found = inspect.getdoc(OPERATIONS[name])
    assert found, f"{name} has no docstring"
    return found


@every_operation
def test_an_operations_docstring_comes_in_the_agreed_order(name):
    """Promise, semantics, errors, **Cancellation**, **Durability**, a runnable example: in this order."""
    text = paragraphs(name)
    promise = text.split("\n\n", maxsplit=1)[0]
    assert "\n" not in promise, "the promise is one line"
    assert promise.endswith(".")
    positions = [text.find(word) for word in ("**Cancellation**", "**Durability**", "```python")]
    if name in READING:
        assert positions[1] == -1, "reading needs no durability"
        del positions[1]
    assert -1 not in positions
    assert positions == sorted(positions)
    assert text.endswith("```")
    assert text.count("```") == 2
    for error in re.finditer(r"`Err\(", text):
        assert error.start() < positions[0], "errors are told before cancellation"


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "```python" in (inspect.getdoc(FUNCTIONS[name]) or "")])
def test_an_example_is_python(name):
    """An example parses, inside a coroutine."""
    example = re.search(r"```python\n(.*?)```", inspect.getdoc(FUNCTIONS[name]), re.DOTALL)
    ast.parse("async def example():\n" + textwrap.indent(example[1], "    "))


def alternatives(annotation: str) -> set[str]:
    """Return the names of the errors that an annotation stands for, with the aliases spelled out."""
    found: set[str] = set()
    for word in re.findall(r"\w+", annotation):
        value = getattr(errors, word, None)
        if isinstance(value, type) and issubclass(value, SpoolError):
            found.add(word)
        elif value is not None and word[0].isupper():
            found |= {error.__name__ for error in getattr(value, "__args__", ())}
    return found


OF_OTHERS = {"Spool.checkouts_unsafe": {"OwnershipLost"}}
"""What a docstring says about another operation."""


@every_operation
def test_the_errors_that_a_docstring_names_are_those_of_the_annotation(name):
    """Every `Err` that is promised is exported, is of the family, and is in the function's annotation."""
    annotation = str(inspect.signature(OPERATIONS[name]).return_annotation)
    assert annotation.startswith(("Result[", "list[Result["))
    named = set(re.findall(r"`Err\((\w+)", paragraphs(name))) - OF_OTHERS.get(name, set())
    assert named <= set(trio_multispool.__all__)
    assert named <= alternatives(annotation), f"{named - alternatives(annotation)} not in {annotation}"


SPELLED_ELSEWHERE = {
    "AccessDenied", "ReadOnlySpool", "OutOfSpace", "TooManyOpenFiles", "NotARegularFile", "SeveralFileSystems",
    "SpoolGone", "SpoolReplaced", "StorageFailure", "StoreUnreachable",
}  # fmt: skip
REFERRING = {"Spool.create", "Spool.with_entry", "Spool.try_with_entry", "Entry.try_checkout", "Spool.load_unsafe"}


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in REFERRING and not n.startswith("QueueReader")])
def test_the_errors_of_an_annotation_are_named_by_the_docstring(name):
    """A docstring says when each of its errors occurs; the troubles of the operating system may be named together."""
    annotation = str(inspect.signature(OPERATIONS[name]).return_annotation)
    assert alternatives(annotation) - SPELLED_ELSEWHERE <= set(re.findall(r"`Err\((\w+)", paragraphs(name)))


@pytest.mark.parametrize("kind", list(public_classes()))
def test_every_public_class_and_method_is_documented(kind):
    """Everything that can be reached says what it is."""
    assert len((inspect.getdoc(kind) or "").split()) >= 4
    for name, value in vars(kind).items():
        if not name.startswith("_") and (callable(value) or isinstance(value, property)):
            assert inspect.getdoc(getattr(kind, name)), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("kind", SpoolError.__subclasses__())
def test_an_error_does_not_hide_behind_its_dataclass(kind):
    """Errors are dataclasses with positional fields, and without defaults but for what was added to one later."""
    assert dataclasses.is_dataclass(kind)
    defaults = {field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
    added = {NameTaken: {"finished"}, AccessDenied: {"cure"}, NotARegularFile: {"directory"}}
    added |= {errors.UnsupportedFormat: {"cure"}, errors.DirectoryNotEmpty: {"cure"}, errors.SpoolGone: {"what"}}
    added |= {kind: {"reason"} for kind in (errors.ReadOnlySpool, errors.StorageFailure, errors.DurabilityUnknown)}
    assert defaults == added.get(kind, set())


# Imports


BELOW = [
    "errors",
    "events",
    "instrumentation",
    "clock",
    *(
        module.name.removeprefix("trio_multispool.")
        for package in (model, storage)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.startswith("trio_multispool.storage.postgres.")  # psycopg itself imports asyncio
    ),
]


@pytest.mark.program
@pytest.mark.sample
def test_nothing_below_the_thread_hop_imports_an_async_library():
    """The storage and all that is under it can be used, and understood, without an event loop."""
    done = run_python(
        """
        import importlib, importlib.util, types
        package = types.ModuleType("trio_multispool")  # the package itself imports everything
        package.__path__ = importlib.util.find_spec("trio_multispool").submodule_search_locations
        sys.modules["trio_multispool"] = package
        for name in sys.argv[1:]:
            importlib.import_module("trio_multispool." + name)
            for library in ("anyio", "trio", "asyncio", "sniffio"):
                assert library not in sys.modules, f"{name} imports {library}"
        print(len(sys.argv) - 1)
        """,
        *BELOW,
        anew=True,
    )
    assert int(done.stdout) == len(BELOW) >= 25


@pytest.mark.program
def test_importing_the_package_imports_neither_trio_nor_asyncio():
    """Who uses one backend does not pay for the other."""
    done = run_python(
        """
        import anyio
        before = set(sys.modules)
        import trio_multispool
        print(sorted({"trio", "asyncio"} & (set(sys.modules) - before)))
    """,
        anew=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.program
def test_the_package_works_with_warnings_as_errors_and_without_assertions():
    """No warning at import, and nothing that rests on an `assert`."""
    done = run_python(
        """
        import subprocess
        code = "import sys; sys.path[:0] = %r; import trio_multispool; print(trio_multispool.Ok(1).unwrap())" % sys.path
        for flags in (["-W", "error"], ["-O"], ["-OO"]):
            done = subprocess.run([sys.executable, *flags, "-c", code], check=True, capture_output=True, text=True)
            print(done.stdout)
    """,
        anew=True,
    )
    assert done.stdout.split() == ["1", "1", "1"]
