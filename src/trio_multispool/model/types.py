"""The type variables that the whole library shares, declared once."""

from __future__ import annotations

import enum
import sys
from typing import TypeVar

if sys.version_info >= (3, 13):
    TypeVarWithDefault = TypeVar
else:
    from typing_extensions import TypeVar as TypeVarWithDefault

__all__ = ["A", "D", "M", "Q", "T", "TypeVarWithDefault"]

Q = TypeVar("Q", bound=enum.Enum)
"""The queues of a spool."""

M = TypeVar("M")
"""The metadata of its entries."""

D = TypeVar("D")
"""Their data."""

A = TypeVarWithDefault("A", default=None)
"""What its name generator is asked with."""

T = TypeVar("T")
"""What a function returns."""
