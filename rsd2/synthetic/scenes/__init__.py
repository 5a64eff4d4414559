"""Overhead scenes with rotated objects of seven classes."""
