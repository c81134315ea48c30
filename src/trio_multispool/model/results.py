"""`Ok` and `Err`: what an operation that can fail in ordinary use returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeAlias, TypeVar, final

import msgspec

from trio_multispool.model.unread import Unread, line_outside

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

    def ignore(self) -> None:
        """Do nothing. Of an `Err`, the same call says that it is dropped on purpose."""


@final
class Err(Generic[E_co]):
    """The operation did not take effect, unless its error says otherwise; `error` can be matched on.

    ```python
    match await entry.checkout():
        case Err(EntryBusy(name)):
            print(name, "is somebody else's now")
    ```

    One that an operation has answered with, and that is dropped before anybody looked at its error, makes an
    `UnreadErrWarning`. `error` looks at it, and so do all methods but `map`, a `match` that binds it, `==`, `repr` and
    pickling. `ignore()` says that it is dropped on purpose.
    """

    __slots__ = ("_error", "_unread")
    __match_args__ = ("error",)

    def __init__(self, error: E_co) -> None:
        """Hold an error."""
        self._error = error
        self._unread: Unread | None = None

    @property
    def error(self) -> E_co:
        """The error, one of those that the operation's annotation names."""
        self._unread = None
        return self._error

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
        self.ignore()
        return default

    def map(self, _function: Callable[[Any], object]) -> Err[E_co]:
        """Return this `Err`. Of an `Ok`, the same call returns an `Ok` of what the function makes of its value."""
        return self

    def ignore(self) -> None:
        """Say that it does not matter whether the operation succeeded."""
        self._unread = None

    def __repr__(self) -> str:
        return f"Err(error={self.error!r})"

    def __eq__(self, other: object) -> bool:
        return self.error == other.error if isinstance(other, Err) else NotImplemented

    def __hash__(self) -> int:
        return hash((Err, self.error))

    def __reduce__(self) -> tuple[type[Err[E_co]], tuple[E_co]]:
        return Err, (self.error,)

    def __del__(self) -> None:
        """Warn if nobody has looked at the error."""
        unread = getattr(self, "_unread", None)  # which one without an error lacks
        if unread is not None:
            unread.warn(self._error)


Result: TypeAlias = Ok[T_co] | Err[E_co]
"""`Ok[T]` or `Err[E]`: `match` it, or call one of the methods that both have."""


def peek(answer: Err[E_co]) -> E_co:
    """Return the error for the library itself, which passes the `Err` on: nobody has looked at it."""
    return answer._error  # noqa: SLF001  # its own room


def handed_out(answer: Result[T_co, E_co], operation: str, of: str) -> Result[T_co, E_co]:
    """Return what an operation answers its caller with. If nobody looks at an `Err`, its line is told.

    Call it in the caller's task; what is handed out again is told anew.
    """
    if isinstance(answer, Err):
        answer._unread = Unread(operation, of, line_outside())  # noqa: SLF001  # its own room
    return answer


def handed_on(answer: Result[T_co, E_co]) -> Result[T_co, E_co]:
    """Return what an operation has answered in another thread. If nobody looks at an `Err`, the line here is told."""
    if isinstance(answer, Err) and answer._unread is not None:  # noqa: SLF001  # its own room
        answer._unread = msgspec.structs.replace(answer._unread, line=line_outside())  # noqa: SLF001
    return answer
