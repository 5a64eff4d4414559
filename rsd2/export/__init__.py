"""Detectors as graphs that other programs run."""
