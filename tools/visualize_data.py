#!/usr/bin/env python
"""``rsd2.commands.visualize_data`` as a script; ``--help`` says what it does."""

import sys

from rsd2.commands.visualize_data import main

if __name__ == "__main__":
    sys.exit(main())
