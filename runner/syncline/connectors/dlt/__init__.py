"""Reads the resources of dlt sources."""
