"""``python -m rsd2`` is the command ``rsd2``."""

from __future__ import annotations

import sys

from rsd2.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
