"""`Ok` and `Err`: what an operation that can fail in ordinary use returns."""

from __future__ import annotations

from typing import Generic, NoReturn, TypeAlias, TypeVar, final

import msgspec

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


Result: TypeAlias = Ok[T_co] | Err[E_co]
"""`Ok[T]` or `Err[E]`: `match` it, or call `unwrap()`."""
