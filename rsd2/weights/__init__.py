"""Weights: checkpoints of this project, what a model inherits, and those of other programs."""
