"""Measurements: how fast it is, beside others, and what grows. No tests.

`python -m tests.bench.towers`, `methods`, `gpu`, `feed` and `growth` print tables and
write them as JSON. Nothing here is collected by pytest: timings never gate tests.
`--size=tiny` shows that a bench works, and its figures mean nothing.
docs/performance.md says what was found.
"""
