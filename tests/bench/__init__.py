"""How fast it is, beside others: `python -m tests.bench.towers`, `methods`, `gpu`.

Nothing here is collected by pytest: timings never gate tests. `--size=tiny` shows that
a bench works, and its figures mean nothing. `docs/speed.md` says what was found.
"""
