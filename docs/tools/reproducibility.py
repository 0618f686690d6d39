"""Writes REPRODUCIBILITY.md, docs/results/*.md and the tables of docs/benchmark.md.

`python docs/tools/reproducibility.py` makes them of docs/reproduced.toml, which says
what was reproduced of each method, and of the `summary.json` or `transfer.json` of the
sweeps that are stored in docs/results. In docs/benchmark.md, the table after
`<!-- NAME.json -->` is replaced.
"""

import argparse
import itertools
import json
import pathlib
import re
import tomllib
from typing import Any

from mmcl_jax.sweeps import aggregate, transfer

ROOT = pathlib.Path(__file__).parents[2]
PAGE = "REPRODUCIBILITY.md"
RESULTS = "docs/results"
TABLES = "docs/benchmark.md"
# the sweep whose means are on the page itself
BENCHMARK = "real_development"
# the same stream under fewer seeds, of methods that take minutes
TRAINED = "real_development_trained"
COLUMNS = {
    "modality predicted": "routed/last_average_accuracy",
    "modality given": "within/last_average_accuracy",
    "among all classes": "predicted/last_average_accuracy",
    "learning accuracy": "routed/learning_accuracy",
    "forgetting": "routed/forgetting_chaudhry",
    "excess forgetting": "routed/excess_forgetting",
}
_MAIN = COLUMNS["modality predicted"]
# on the page of all methods, which is short
_SHOWN = ("modality predicted", "learning accuracy", "forgetting")

_HEAD = """\
# Reproducibility

Written by `python docs/tools/reproducibility.py` from
[docs/reproduced.toml](docs/reproduced.toml) and the sweeps in docs/results; a test
checks that it is up to date.

A run is determined by its config, which every workdir holds: order, initial values and
data have seeds of their own, nothing random is stored, and a run that was stopped
resumes as if it had not been. The streams of the benchmarks are pinned by their hashes
(`tests/mmcl_world_test.py`, `tests/pinned_test.py`). Another kind of device or another
version of JAX rounds sums differently, so numbers are close but not bitwise equal.

## Methods

Every method passes `tests/method_contract_test.py`. The tests named below compare its
mathematics with hand-computed numbers or with an independent computation. *Code* stands
for what the authors' code, or that named, answers for given numbers, to which a test
holds this one; the published accuracies are of other encoders and data sets.

| method | paper | published numbers reproduced | checked by | deviations and reasons |
| --- | --- | --- | --- | --- |
"""

_RESULTS = """\

## Results
"""

_NONE = "\nNo sweep is stored yet.\n"

_BENCHMARK = """
On the development classes of mmcl-real v1, stream `interleaved`
([docs/benchmark.md](docs/benchmark.md)), in percent: mean ± sample deviation over
seeds. Forgetting is that of Chaudhry et al., modality predicted.

"""

_FULL = """
Every value, intervals, differences to the baseline, ranks and cost:

| sweep | runs | measured on |
| --- | ---: | --- |
"""

_TRANSFER = """\
# Results of the sweep `{name}`

Written by `python docs/tools/reproducibility.py` from [{name}.json]({name}.json).

`--sweep={sweep}`, {runs} runs, on {where}.

Accuracy at the end on the tasks of the later modality, in percent: mean ± sample
deviation over seeds; and what it has gained over the stream without the earlier
modality (`alone`), or with other concepts of it (`other`), under the same seed, in
points, with 95 % t intervals; * where the paired t test has p < 0.05 after Holm's
correction over the table ([metrics](../metrics.md#transfer-across-modalities)).

"""

_SWEEP = """\
# Results of the sweep `{name}`

Written by `python docs/tools/reproducibility.py` from [{name}.json]({name}.json).

`--sweep={sweep}`, {runs} runs, on {where}.

Accuracy in percent, among all classes seen or among those of the given modality: mean ±
sample deviation over runs, each with its own order and seed, [95 % t interval of the
mean], and the values themselves where there are fewer than five. Forgetting is that of
Chaudhry et al. ([metrics](../metrics.md)).

"""


def read_methods(root: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the table of methods."""
    return tomllib.loads((root / "docs" / "reproduced.toml").read_text("utf-8"))


def pages(root: pathlib.Path) -> dict[str, str]:
    """Returns the text of every page by its path in the repository.

    Args:
        root: Folder of the repository.
    """
    reports = {
        path.stem: json.loads(path.read_text("utf-8"))
        for path in sorted((root / RESULTS).glob("*.json"))
    }
    rows = [
        f"| `{name}` | {row['paper']} | {row['published']} "
        f"| {', '.join(map(_link, row['checked']))} | {row['deviations']} |\n"
        for name, row in read_methods(root).items()
    ]
    made = {PAGE: _HEAD + "".join(rows) + _RESULTS + _results(reports)}
    for name, report in reports.items():
        made[f"{RESULTS}/{name}.md"] = _sweep(name, report)
    page = root / TABLES
    if page.is_file():
        made[TABLES] = _with_tables(page.read_text("utf-8"), reports)
    return made


def _with_tables(page: str, reports: dict[str, Any]) -> str:
    """Returns a page with the table after each marker made anew."""

    def table(found: re.Match[str]) -> str:
        report = reports[found[2]]
        make = _transferred if "transfer" in report else _compared
        return found[1] + make(report)

    return re.sub(r"(<!-- (\w+)\.json -->\n\n)(?:\|.*\n)*", table, page)


def _compared(report: dict[str, Any]) -> str:
    """Returns a table of all variants beside the baseline, best first."""
    (summaries,), (differences,) = (
        report[name].values() for name in ("summaries", "differences")
    )
    baseline, cost = report["baseline"], report["cost"]
    first, *others = COLUMNS
    head = ["", "n", first, f"less `{baseline}`", *others, "bytes", "seconds"]
    rows = []
    for name in _by_mean(summaries):
        less = ""
        if name in differences:
            found = differences[name][_MAIN]
            mean, low, high = (100 * found[key] for key in ("mean", "low", "high"))
            clear = found["p_holm"] is not None and found["p_holm"] < 0.05
            less = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" + " *" * clear
        cells = [_mean(summaries[name][key]) for key in COLUMNS.values()]
        runs = str(len(summaries[name][_MAIN]["values"]))
        size = f"{cost[name]['bytes_remembered'] / 2**20:.1f} MiB"
        seconds = f"{cost[name]['seconds']:.0f}"
        rows.append([f"`{name}`", runs, cells[0], less, *cells[1:], size, seconds])
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))


def _transferred(report: dict[str, Any]) -> str:
    """Returns a table of all variants by training samples and later modality."""
    streams = ("sounds_after_pictures", "pictures_after_sounds")
    head = ["", "samples"]
    for stream in streams:
        later, earlier = stream.split("_after_")
        head += [f"{later} alone", f"after {earlier}", f"less after other {earlier}"]
    alone, other = (report["transfer"][name] for name in ("alone", "other"))
    shots = sorted({int(key.split()[1]) for key in report["accuracy"]})
    rows = []
    for variant, number in itertools.product(report["rows"], shots):
        cells = [f"`{variant}`", str(number)]
        for stream in streams:
            key, base = f"{stream} {number}", stream.split("_after_")[0] + "_alone"
            own = report["accuracy"][f"{base} {number}"].get(variant)
            cells.append(_mean(own["within"]) if own else "")
            for gains in (alone, other):
                found = gains.get(key, {}).get(variant)
                cells.append(transfer.gain(found["within"]) if found else "")
        if any(cells[2:]):
            rows.append(cells)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))


def _by_mean(summaries: dict[str, Any]) -> list[str]:
    return sorted(summaries, key=lambda name: -summaries[name][_MAIN]["mean"])


def _means(report: dict[str, Any]) -> str:
    (summaries,) = report["summaries"].values()
    columns = {title: COLUMNS[title] for title in _SHOWN}
    text = f"| method | {' | '.join(columns)} |\n"
    text += "| --- |" + " ---: |" * len(columns) + "\n"
    for name in _by_mean(summaries):
        cells = [_mean(summaries[name][key]) for key in columns.values()]
        text += f"| `{name}` | {' | '.join(cells)} |\n"
    return text


def _link(test: str) -> str:
    name = pathlib.PurePath(test).stem.removesuffix("_test")
    return f"[{name}]({test})"


def _results(reports: dict[str, Any]) -> str:
    """Returns the means of the benchmark, and where the rest of the results is."""
    if not reports:
        return _NONE
    text = ""
    if BENCHMARK in reports:
        text += _BENCHMARK + _means(reports[BENCHMARK])
    rows = [
        f"| [{name}]({RESULTS}/{name}.md) "
        f"| {len(report['runs'])} | {_where(report)} |\n"
        for name, report in reports.items()
    ]
    return text + _FULL + "".join(rows)


def _mean(entry: dict[str, Any]) -> str:
    if entry["mean"] is None:
        return "-"
    return f"{100 * entry['mean']:.1f} ± {100 * entry['deviation']:.1f}"


def _where(report: dict[str, Any]) -> str:
    """Returns the environments of the runs of a sweep, what they share once."""
    found: dict[str, dict[str, None]] = {}
    for run in report["runs"]:
        for name, value in run["environment"].items():
            # the first letters of a commit identify it
            found.setdefault(name, {})[str(value)[:12]] = None
    return ", ".join(f"{name} {' and '.join(values)}" for name, values in found.items())


def _sweep(name: str, report: dict[str, Any]) -> str:
    is_transfer = "transfer" in report
    head = (_TRANSFER if is_transfer else _SWEEP).format(
        name=name,
        sweep=report["sweep"],
        runs=len(report["runs"]),
        where=_where(report),
    )
    to_markdown = transfer.to_markdown if is_transfer else aggregate.to_markdown
    return head + to_markdown(report, level=2)


def main() -> None:
    """Writes the pages."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for path, text in pages(ROOT).items():
        (ROOT / path).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
