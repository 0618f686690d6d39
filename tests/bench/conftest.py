"""Doctests are looked for in every module; these need torch, and have none."""

collect_ignore = ["methods.py", "torch_tower.py", "towers.py"]
