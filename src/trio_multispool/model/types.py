"""The types that the whole library shares: its type variables, and a path as callers give it."""

from __future__ import annotations

import enum
import sys
from typing import Protocol, TypeAlias, TypeVar

if sys.version_info >= (3, 13):
    TypeVarWithDefault = TypeVar
else:
    from typing_extensions import TypeVar as TypeVarWithDefault

__all__ = ["A2", "D2", "M2", "Q2", "A", "D", "M", "Q", "StrPath", "T", "TypeVarWithDefault"]

Q = TypeVar("Q", bound=enum.Enum)
"""The queues of a spool."""

M = TypeVar("M")
"""The metadata of its entries."""

D = TypeVarWithDefault("D", default=None)
"""Their data; none by default."""

A = TypeVarWithDefault("A", default=None)
"""The argument of its name generator."""

# Constructors need their own type variables: those of the class are bound to the type that they are called on.
Q2 = TypeVar("Q2", bound=enum.Enum)
M2 = TypeVar("M2")
D2 = TypeVar("D2")
A2 = TypeVarWithDefault("A2", default=None)

T = TypeVar("T")
"""What a function returns."""


class _PathLike(Protocol):
    """`os.PathLike[str]` without the module `os`: this package makes no file calls."""

    def __fspath__(self) -> str: ...


StrPath: TypeAlias = str | _PathLike
"""A path as callers give it: a string, a `pathlib.Path`, or anything with `__fspath__`."""
