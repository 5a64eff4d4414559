"""Backbones, and the feature pyramid for backbones with a single map."""
