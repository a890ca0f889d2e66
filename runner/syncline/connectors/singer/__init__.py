"""Reads the streams of Singer taps."""
