"""Mutation fuzzing of every decoder and parser: `python -m tests.fuzz --help`."""
