"""`python -m mmcl_jax.reproducibility`: writes REPRODUCIBILITY.md anew.

It is made of docs/reproduced.toml, which says what was reproduced of each method, and
of the `summary.json` of the sweeps that are stored in docs/results.
"""

import argparse
import json
import pathlib
import tomllib
from typing import Any

from mmcl_jax.sweeps import aggregate

ROOT = pathlib.Path(__file__).parents[1]
PAGE = "REPRODUCIBILITY.md"

_HEAD = """\
# Reproducibility

Written by `python -m mmcl_jax.reproducibility` from
[docs/reproduced.toml](docs/reproduced.toml) and the sweeps in
[docs/results](docs/results); a test sees to it that it is up to date.

A run is determined by its config, which every workdir holds: seeds of order, initial
values and data are separate, nothing random is stored, and a run that was stopped goes
on as if it had not been. The benchmark's streams are pinned by their hashes
(`tests/arguments_test.py`). On another kind of device or under another version of JAX,
sums are rounded differently, so numbers are near and not bitwise equal.

## Methods

Each method passes `tests/method_contract_test.py`. The tests below hold its mathematics
to hand numbers or to an independent computation.

| method | of | published numbers reproduced | checked by | deviations, and why |
| --- | --- | --- | --- | --- |
"""

_RESULTS = """\

## Results

Accuracy in percent, among all classes met or those of the given modality: mean ± sample
deviation over runs, each with an order and seed of its own, [95 % bootstrap interval of
the mean], and the values where these are fewer than five. Intervals of so few runs are
too narrow. Forgetting is that of Chaudhry et al. ([docs/metrics.md](docs/metrics.md)).
"""

_NONE = "\nNo sweep is stored yet.\n"


def read_methods(root: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the table of methods."""
    return tomllib.loads((root / "docs" / "reproduced.toml").read_text("utf-8"))


def page(root: pathlib.Path) -> str:
    """Returns what REPRODUCIBILITY.md holds.

    Args:
        root: of the repository.
    """
    rows = [
        f"| `{name}` | {row['paper']} | {row['published']} "
        f"| {', '.join(f'[{t}]({t})' for t in row['checked'])} | {row['deviations']} |"
        for name, row in read_methods(root).items()
    ]
    reports = sorted((root / "docs" / "results").glob("*.json"))
    text = _HEAD + "\n".join(rows) + "\n" + _RESULTS
    if not reports:
        return text + _NONE
    return text + "".join(_section(path) for path in reports)


def _section(path: pathlib.Path) -> str:
    report = json.loads(path.read_text("utf-8"))
    places = {json.dumps(run["environment"]): run for run in report["runs"]}
    where = "; ".join(
        ", ".join(f"{name} {value}" for name, value in run["environment"].items())
        for run in places.values()
    )
    runs = f"`--sweep={report['sweep']}`, {len(report['runs'])} runs"
    tables = aggregate.to_markdown(report, level=4)
    return f"\n### {path.stem}\n\n{runs}, on {where}.\n\n{tables}"


def main() -> None:
    """Writes the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    (ROOT / PAGE).write_text(page(ROOT), "utf-8")


if __name__ == "__main__":
    main()
