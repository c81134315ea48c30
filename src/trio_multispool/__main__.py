"""`python -m trio_multispool`: the command `multispool`."""

from __future__ import annotations

import sys

from trio_multispool.cli import main

if __name__ == "__main__":
    sys.exit(main())
