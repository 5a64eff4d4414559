#!/usr/bin/env python
"""``rsd2.commands.install_detectron2`` as a script; ``--help`` says what it does."""

import sys
from pathlib import Path

# The set-up runs this script before rsd2 itself is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsd2.commands.install_detectron2 import main

if __name__ == "__main__":
    sys.exit(main())
