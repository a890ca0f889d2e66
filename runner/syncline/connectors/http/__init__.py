"""Reads the records of JSON APIs over HTTP."""
