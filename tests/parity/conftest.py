"""Doctests are looked for in every module; these need torch, and have none."""

collect_ignore = [
    "huggingface.py",
    "imagebind.py",
    "languagebind.py",
    "observing.py",
    "openclip.py",
]
