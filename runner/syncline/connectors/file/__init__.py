"""Reads the records of files, local or in object stores."""
