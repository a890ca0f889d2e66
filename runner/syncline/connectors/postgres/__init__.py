"""Reads tables and queries of another Postgres."""
