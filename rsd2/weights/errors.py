"""Errors of reading and writing weights."""


class CheckpointError(ValueError):
    """A checkpoint is missing, unreadable, unsafe or of another model, or cannot be written."""
