"""Weights: this project's checkpoints, inheritance from pre-trainings, and third-party files."""
