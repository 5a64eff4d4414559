#!/usr/bin/env python
"""``rsd2.projects.mutdet.extract_embeddings`` as a script; ``--help`` says what it does."""

import sys

from rsd2.projects.mutdet.extract_embeddings import main

if __name__ == "__main__":
    sys.exit(main())
