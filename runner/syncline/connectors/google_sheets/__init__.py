"""Reads the rows of Google Sheets."""
