#!/usr/bin/env python
"""``rsd2.commands.predict_scene`` as a script; ``--help`` says what it does."""

import sys

from rsd2.commands.predict_scene import main

if __name__ == "__main__":
    sys.exit(main())
