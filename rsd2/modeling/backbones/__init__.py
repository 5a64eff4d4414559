"""Backbones, and the pyramid of those that have one map."""
