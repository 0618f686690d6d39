"""Measurements: programs that print tables, and write them as JSON. No tests."""
