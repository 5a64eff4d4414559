"""The error of this room."""


class CheckpointError(ValueError):
    """A checkpoint is missing, unreadable, unsafe or of another model, or cannot be written."""
