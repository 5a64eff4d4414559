#!/usr/bin/env python
"""``rsd2.commands.pack`` as a script; ``--help`` says what it does."""

import sys

from rsd2.commands.pack import main

if __name__ == "__main__":
    sys.exit(main())
