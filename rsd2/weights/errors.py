"""The error of this room."""


class CheckpointError(RuntimeError):
    """A checkpoint is missing, unreadable, unsafe or of another model, or cannot be written."""
