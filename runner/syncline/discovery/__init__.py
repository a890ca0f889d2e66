"""Looks at live sources, and writes the streams and models that a project lacks for them."""
