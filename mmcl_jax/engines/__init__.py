"""What starts the runs of a sweep: one small file an engine."""
