"""`multispool sql`: print what makes the tables of a spool on a server, for who may make them."""

from typing import Annotated

from cyclopts import Parameter

from trio_multispool.cli import output
from trio_multispool.cli.arguments import Location
from trio_multispool.cli.exits import Exit, Failure
from trio_multispool.cli.spools import with_its_extra
from trio_multispool.session.stores import script_for


def sql(
    spool: Location,
    /,
    *,
    since: Annotated[
        int, Parameter(name="--from", help="The version of the tables that are there; 0: there are none.")
    ] = 0,
) -> None:
    """Print the SQL that makes the tables of a spool on a PostgreSQL server.

    Or, with `--from`, the SQL that brings them up to date. It is for an administrator, where the role of the programs
    must not make tables. It is one transaction, and says at its beginning which rights that role needs. No server is
    asked. Otherwise `create` does the same itself.

    ```console
    $ multispool sql 'postgresql://db.example.org/shop?spool=mail' | psql shop
    ```
    """
    try:
        script = with_its_extra(lambda: script_for(spool, since))
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from error
    output.raw(script.encode())
