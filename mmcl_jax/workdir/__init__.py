"""The folder of a run: the only place that knows where things are on disk."""
