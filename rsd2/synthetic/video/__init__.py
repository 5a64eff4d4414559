"""Satellite videos of moving vehicles."""
