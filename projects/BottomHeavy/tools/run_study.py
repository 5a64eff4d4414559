#!/usr/bin/env python
"""``rsd2.projects.bottom_heavy.study`` as a script; ``--help`` says what it does."""

import sys

from rsd2.projects.bottom_heavy.study import main

if __name__ == "__main__":
    sys.exit(main())
