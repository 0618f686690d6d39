"""The folder of a run: the only room that knows its files on disk."""
