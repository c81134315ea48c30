"""Where the installed command `multispool` begins. It is no part of the package, which takes a while to import."""

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> int:
    """Import the command and run it. Until then, Ctrl-C ends the process at once, without a traceback.

    An exception would not do for that: Python prints those that are raised in callbacks of the import system.
    """
    try:
        import contextlib  # noqa: PLC0415  # these take a while too
        import signal  # noqa: PLC0415
        from importlib import import_module  # noqa: PLC0415

        heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if heeded:  # where it is ignored, it stays so
            _ = signal.signal(signal.SIGINT, signal.SIG_DFL)
        from trio_multispool.cli import main as command  # noqa: PLC0415  # as above

        with contextlib.suppress(ModuleNotFoundError):  # the command says what is missing
            _ = import_module("trio_multispool.cli.app")
        if heeded:
            _ = signal.signal(signal.SIGINT, signal.default_int_handler)
        return command()
    except KeyboardInterrupt:
        return _INTERRUPTED
