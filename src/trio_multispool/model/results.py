"""`Ok` and `Err`: what an operation that can fail in ordinary use returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeAlias, TypeVar, final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.model.types import T

T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", bound=Exception, covariant=True)


@final
class Ok(msgspec.Struct, Generic[T_co], frozen=True):
    """The operation took effect; `value` is its result.

    ```python
    match await spool.enqueue(Mail.SEND, envelope, message):
        case Ok(entry):
            print("on disk:", entry.name)
        case Err(error):
            print("not enqueued:", error)
    ```
    """

    value: T_co

    def unwrap(self) -> T_co:
        """Return the value. Of an `Err`, the same call raises its error."""
        return self.value

    def expect(self, _message: str) -> T_co:
        """Return the value. Of an `Err`, the same call raises its error, with the message as a note."""
        return self.value

    def unwrap_or(self, _default: object) -> T_co:
        """Return the value. Of an `Err`, the same call returns the default."""
        return self.value

    def map(self, function: Callable[[T_co], T]) -> Ok[T]:
        """Return `Ok(function(value))`. An `Err` stays as it is, and the function is not called."""
        return Ok(function(self.value))


@final
class Err(msgspec.Struct, Generic[E_co], frozen=True):
    """The operation did not take effect, unless its error says otherwise; `error` can be matched on.

    ```python
    match await entry.checkout():
        case Err(EntryBusy(name)):
            print(name, "is somebody else's now")
    ```
    """

    error: E_co

    def unwrap(self) -> NoReturn:
        """Raise the error. Of an `Ok`, the same call returns its value.

        Raises the same object that `error` holds, so its cause and its traceback are kept.
        """
        raise self.error

    def expect(self, message: str) -> NoReturn:
        """Raise the error, with a note that says what was expected. Of an `Ok`, the same call returns its value."""
        self.error.add_note(message)
        raise self.error

    def unwrap_or(self, default: T) -> T:
        """Return the default. Of an `Ok`, the same call returns its value."""
        return default

    def map(self, _function: Callable[[Any], object]) -> Err[E_co]:
        """Return this `Err`. Of an `Ok`, the same call returns an `Ok` of what the function makes of its value."""
        return self


Result: TypeAlias = Ok[T_co] | Err[E_co]
"""`Ok[T]` or `Err[E]`: `match` it, or call `unwrap()`, `expect(message)`, `unwrap_or(default)` or `map(function)`."""
