"""`multispool completion`: the script that teaches a shell to complete the command."""

from collections.abc import Callable
from typing import Annotated, Literal

from cyclopts import Parameter

from trio_multispool.cli import output

Shell = Literal["bash", "zsh", "fish"]


def completion_command(generate: Callable[[Shell], str]) -> Callable[[Shell], None]:
    """Return the command, which prints what `generate` makes for a shell."""

    def completion(shell: Annotated[Shell, Parameter(name="SHELL", help="The shell.")], /) -> None:
        """Print the script that makes a shell complete the command.

        It completes commands, options, and the queues and entries of the spool that is named.

        ```console
        $ source <(multispool completion bash)
        $ multispool completion zsh > ~/.zfunc/_multispool
        $ multispool completion fish > ~/.config/fish/completions/multispool.fish
        ```
        """
        output.line(generate(shell).rstrip("\n"))

    return completion
