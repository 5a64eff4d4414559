"""The error of this room that ends a command in one sentence."""


class RunError(ValueError):
    """The run cannot start as it was asked for; the message says what to change."""
