"""The HTTP API: requests, reports and pushes over the same functions that the command line calls."""
