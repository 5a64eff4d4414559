"""Beaches and seas with objects of 2 to 20 pixels."""
