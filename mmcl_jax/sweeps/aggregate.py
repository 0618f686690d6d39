"""From the results of many runs to tables: Markdown, CSV and JSON."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmcl_jax.analysis import statistics
from mmcl_jax.analysis.measures import COSTS, METRICS, cost, measured
from mmcl_jax.files import read_json, write_text
from mmcl_jax.plain_text import to_csv
from mmcl_jax.sweeps.runs import SweepRun
from mmcl_jax.workdir.results import plain

_LESS_IS_BETTER = ("forgetting_chaudhry", "excess_forgetting")
_TITLES = {
    "routed": "Classes seen of the predicted modality",
    "predicted": "All classes seen, modality predicted",
    "given": "All classes seen, modality given",
    "within": "Classes seen of the given modality",
}
# metric by which hyper-parameters are chosen, and which comes first in every table
CHOSEN_BY = "routed/last_average_accuracy"
ALL_STREAMS = "all streams"
_SHOW_VALUES_BELOW = 5
_CLEAR = 0.05

Ended = Sequence[tuple[SweepRun, dict[str, Any]]]
Values = dict[str, dict[tuple[str, int], float]]


def aggregate(ended: Ended, baseline: str, sweep: str = "") -> dict[str, Any]:
    """Compares runs.

    Args:
        ended: Finished runs, with the content of their `results.json`.
        baseline: Variant that the others are compared to, pair by pair.
        sweep: Name of the sweep.

    Returns:
        Lists and numbers for JSON; undefined values are null. `runs`: measures of each
        run. `summaries` and `differences` by stream, variant and metric; over all
        streams, a seed counts once, with its mean. Differences have the p-value of a
        paired t test and that after Holm's correction over the variants of a stream
        and metric. `ranks` by metric, stream and variant, where all variants have a
        run in common. `cost`: means by variant.
    """
    rows = [
        {
            "variant": run.variant,
            "stream": run.stream,
            "seed": run.seed,
            "values": measured(results),
            "cost": cost(results),
            "environment": results["environment"],
        }
        for run, results in ended
    ]
    streams = list(dict.fromkeys(row["stream"] for row in rows))
    groups = {stream: [r for r in rows if r["stream"] == stream] for stream in streams}
    if len(streams) > 1 and (means := _over_streams(rows, len(streams))):
        groups[ALL_STREAMS] = means
    return plain(
        {
            "sweep": sweep,
            "baseline": baseline,
            "runs": rows,
            "summaries": {name: _summaries(group) for name, group in groups.items()},
            "differences": {
                name: _differences(group, baseline) for name, group in groups.items()
            },
            "ranks": {
                key: {
                    name: ranks
                    for name, group in groups.items()
                    if (ranks := _ranks(group, key))["runs"]
                }
                for key in measured(ended[0][1])
            },
            "cost": _costs(rows),
        }
    )


def _over_streams(rows: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Returns the means of each variant and seed that has all streams.

    Streams of one seed have the same classes and samples in another order, so they do
    not count as independent runs for an interval.
    """
    by_place: dict[tuple[str, int], list[dict[str, float]]] = {}
    for row in rows:
        place = row["variant"], row["seed"]
        by_place.setdefault(place, []).append(row["values"])
    return [
        {
            "variant": variant,
            "stream": ALL_STREAMS,
            "seed": seed,
            "values": {key: float(np.mean([v[key] for v in own])) for key in own[0]},
        }
        for (variant, seed), own in by_place.items()
        if len(own) == number
    ]


def _by_variant(rows: Iterable[dict[str, Any]], key: str) -> Values:
    found: Values = {}
    for row in rows:
        place = row["stream"], row["seed"]
        found.setdefault(row["variant"], {})[place] = row["values"][key]
    return found


def _summaries(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in rows[0]["values"]:
        for variant, values in _by_variant(rows, key).items():
            summary = statistics.summary(list(values.values()))
            found.setdefault(variant, {})[key] = summary._asdict()
    return found


def _differences(rows: list[dict[str, Any]], baseline: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in rows[0]["values"]:
        values = _by_variant(rows, key)
        for variant in values.keys() - {baseline}:
            other = values.get(baseline, {})
            difference = statistics.paired_difference(values[variant], other)
            if difference is not None:
                p = statistics.t_test(difference.values)
                entry = difference._asdict() | {"p_value": p}
                found.setdefault(variant, {})[key] = entry
        compared = [entries[key] for entries in found.values() if key in entries]
        adjusted = statistics.holm([entry["p_value"] for entry in compared])
        for entry, p in zip(compared, adjusted, strict=True):
            entry["p_holm"] = p
    return {variant: found[variant] for variant in values if variant in found}


def _ranks(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    values = _by_variant(rows, key)
    if key.rpartition("/")[2] in _LESS_IS_BETTER:
        values = {v: {k: -x for k, x in of.items()} for v, of in values.items()}
    means, count = statistics.mean_ranks(values)
    return {"runs": count, "mean": means}


def _costs(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    variants = dict.fromkeys(row["variant"] for row in rows)
    return {
        variant: {
            name: float(
                np.mean([r["cost"][name] for r in rows if r["variant"] == variant])
            )
            for name in COSTS
        }
        for variant in variants
    }


def choose(ended: Ended) -> dict[str, Any]:
    """Returns the best values of each method by the mean over its runs.

    The first variant of a method is its default. Another one replaces it if the t
    interval of their paired difference is above 0. Otherwise they are a tie, and
    nothing is chosen among ties. Single runs have no interval; there the largest value
    is taken.

    Args:
        ended: Runs of variants of methods; all variants of a method have as many.

    Returns:
        `chosen`: the best values by method; `scores`: the scores of all its variants.
    """
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for run, results in ended:
        variants = scores.setdefault(run.config.method.name, {})
        entry = variants.setdefault(run.variant, {"values": run.values, "runs": {}})
        entry["runs"][run.stream, run.seed] = measured(results)[CHOSEN_BY]
    listed = {
        method: [
            {
                "values": entry["values"],
                "score": statistics.summary(list(entry["runs"].values()))._asdict(),
            }
            for entry in variants.values()
        ]
        for method, variants in scores.items()
    }
    return plain(
        {
            "metric": CHOSEN_BY,
            "chosen": {
                method: _best(list(variants.values()))
                for method, variants in scores.items()
            },
            "scores": listed,
        }
    )


def _best(variants: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the values of the best variant, or of the first if it is as good."""
    default, *others = variants
    best = default

    def mean(variant: dict[str, Any]) -> float:
        # means that differ by rounding alone are a tie
        return round(float(np.mean(list(variant["runs"].values()))), 9)

    for variant in others:
        gain = statistics.paired_difference(variant["runs"], default["runs"])
        assert gain is not None  # all variants have the same streams and seeds
        clear = gain.low > 0 if len(gain.values) > 1 else gain.mean > 0
        if clear and mean(variant) > mean(best):
            best = variant
    return best["values"]


def write_choice(choice: dict[str, Any], path: pathlib.Path) -> None:
    """Writes what was chosen; the file keeps its entries on other methods or fields."""
    if path.is_file():
        before = read_json(path, "what was chosen before")
        chosen, scores = before.get("chosen", {}), before.get("scores", {})
        for method, values in choice["chosen"].items():
            chosen[method] = chosen.get(method, {}) | values
        for method, entries in choice["scores"].items():
            fields = {field for entry in entries for field in entry["values"]}
            others = scores.get(method, [])
            kept = [entry for entry in others if fields.isdisjoint(entry["values"])]
            scores[method] = kept + entries
        choice = choice | {"chosen": chosen, "scores": scores}
    write_text(path, json.dumps(choice, indent=1) + "\n")


def write(report: dict[str, Any], folder: pathlib.Path) -> None:
    """Writes `summary.json`, `summary.csv` and `summary.md`."""
    write_text(folder / "summary.json", json.dumps(report, indent=1) + "\n")
    write_text(folder / "summary.csv", csv_of(report))
    write_text(folder / "summary.md", to_markdown(report))


def csv_of(report: dict[str, Any]) -> str:
    """Returns one line per number; values of single runs are separated by spaces."""
    numbers = ("mean", "deviation", "low", "high")
    rows: list[list[Any]] = [
        ["table", "stream", "variant", "metric", "n", *numbers, "values"]
    ]
    for table in ("summaries", "differences"):
        for stream, variants in report[table].items():
            for variant, found in variants.items():
                for key, entry in found.items():
                    values = entry["values"]
                    rows.append(
                        [table, stream, variant, key, len(values)]
                        + [entry[name] for name in numbers]
                        + [" ".join("" if v is None else f"{v:.6g}" for v in values)]
                    )
    for key, streams in report["ranks"].items():
        for stream, entry in streams.items():
            for variant, rank in entry["mean"].items():
                rows.append(["ranks", stream, variant, key, entry["runs"], rank])
    for variant, found in report["cost"].items():
        for name, value in found.items():
            rows.append(["cost", ALL_STREAMS, variant, name, "", value])
    return to_csv(rows)


def to_markdown(report: dict[str, Any], level: int = 1) -> str:
    """Returns tables for people; accuracies in percent, differences in points.

    Args:
        report: What `aggregate` gives.
        level: Level of the headings.
    """
    parts, mark = [], "#" * level
    for stream, variants in report["summaries"].items():
        parts.append(f"{mark} {stream}\n")
        stored = {key.partition("/")[0] for key in next(iter(variants.values()))}
        for view, title in _TITLES.items():
            if view not in stored:
                continue
            parts.append(f"{title}:\n")
            parts.append(_table(variants, view, signed=False))
            differences = report["differences"][stream]
            if differences:
                parts.append(
                    f"Minus `{report['baseline']}` under the same seed, in points; * "
                    "where the paired t test has p < 0.05 after Holm's correction:\n"
                )
                parts.append(_table(differences, view, signed=True))
    parts.append(
        f"{mark} Mean ranks\n\nBy {METRICS['last_average_accuracy']}, "
        "modality predicted, over runs that all have:\n"
    )
    # a sweep of a version before this view was there has ranks by the next one
    by = (CHOSEN_BY, "predicted/last_average_accuracy")
    parts.append(
        _rank_table(next(report["ranks"][k] for k in by if k in report["ranks"]))
    )
    parts.append(f"{mark} Cost\n")
    parts.append(_cost_table(report["cost"]))
    return "\n".join(parts)


def _table(variants: dict[str, Any], view: str, signed: bool) -> str:
    rows = []
    for variant, found in variants.items():
        entries = [found[f"{view}/{name}"] for name in METRICS]
        cells = [_cell(entry, signed) for entry in entries]
        rows.append([f"`{variant}`", str(len(entries[0]["values"])), *cells])
    return markdown_table(["", "n", *METRICS.values()], rows)


def _cell(entry: dict[str, Any], signed: bool) -> str:
    """Returns mean and deviation, interval, and the values if there are few."""
    lines = [_percent(entry["mean"], signed)]
    if entry["deviation"] is not None:
        lines[0] += f" ± {_percent(entry['deviation'])}"
        ends = [_percent(entry[end], signed) for end in ("low", "high")]
        clear = (entry.get("p_holm") or 1) < _CLEAR
        lines.append(f"[{', '.join(ends)}]" + " *" * clear)
        if len(entry["values"]) < _SHOW_VALUES_BELOW:
            lines.append(" ".join(_percent(v, signed) for v in entry["values"]))
    return "<br>".join(lines)


def _rank_table(streams: dict[str, Any]) -> str:
    if not streams:
        return "None: no order and seed has a finished run of every variant.\n"
    titles = [f"{stream} (n = {entry['runs']})" for stream, entry in streams.items()]
    variants = dict.fromkeys(v for entry in streams.values() for v in entry["mean"])
    rows = [
        [f"`{variant}`"]
        + [_short(entry["mean"].get(variant)) for entry in streams.values()]
        for variant in variants
    ]
    return markdown_table(["", *titles], rows)


def _cost_table(costs: dict[str, dict[str, float]]) -> str:
    rows = [
        [f"`{variant}`", *(_whole(found[name]) for name in COSTS)]
        for variant, found in costs.items()
    ]
    return markdown_table(["", *COSTS.values()], rows)


def _whole(value: float | None) -> str:
    """Returns a cost; none is below 0, unless stages share a memory of fixed size."""
    return "-" if value is None or value < 0 else f"{value:,.0f}"


def markdown_table(titles: list[str], rows: list[list[str]]) -> str:
    """Returns a table; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(titles) - 1)]
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, rule, *rows)]
    return "\n".join(lines) + "\n"


def _percent(value: float | None, signed: bool = False) -> str:
    return "-" if value is None else f"{100 * value:{'+' if signed else ''}.1f}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
