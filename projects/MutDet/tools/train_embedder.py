#!/usr/bin/env python
"""``rsd2.projects.mutdet.train_embedder`` as a script; ``--help`` says what it does."""

import sys

from rsd2.projects.mutdet.train_embedder import main

if __name__ == "__main__":
    sys.exit(main())
