"""The commands of ``rsd2`` and ``tools/``, a module for each verb."""
