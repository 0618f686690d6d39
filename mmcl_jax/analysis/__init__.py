"""Comparisons of runs, snapshots and methods, and the statistics behind them."""
