"""`python -m trio_multispool`: the command `multispool`."""

from __future__ import annotations

import sys

from _trio_multispool_command import main

if __name__ == "__main__":
    sys.exit(main())
