"""Streams of tasks, and where their samples come from."""
