"""Comparisons of runs, snapshots and methods, and the statistics they rest on."""
