"""Detections in the files that benchmarks exchange."""
