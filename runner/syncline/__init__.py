"""Syncline keeps a Postgres database in step with other systems."""

__version__ = "0.1.0"
