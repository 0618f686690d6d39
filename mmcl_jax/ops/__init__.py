"""Pure functions on arrays: losses, statistics, solvers, trees, random keys."""
