#!/usr/bin/env python
"""``rsd2.projects.mutdet.make_pseudo_labels`` as a script; ``--help`` says what it does."""

import sys

from rsd2.projects.mutdet.make_pseudo_labels import main

if __name__ == "__main__":
    sys.exit(main())
