"""Transfer across modalities: runs with and without the tasks of other modalities."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmcl_jax.analysis import statistics
from mmcl_jax.analysis.measures import VIEWS
from mmcl_jax.evaluation import metrics
from mmcl_jax.files import write_text
from mmcl_jax.sweeps.aggregate import ALL_STREAMS, Ended, markdown_table
from mmcl_jax.workdir.results import plain

# modality given, which shows what was learnt alone; and predicted
_TITLES = {"within": "modality given", "routed": "modality predicted"}
_CLEAR = 0.05

# by variant and seed
_Values = dict[tuple[str, int], float]


def compare(ended: Ended, sweep: str = "") -> dict[str, Any]:
    """Compares each run with those `beside` it, see `SweepRun`.

    Args:
        ended: Finished runs, with the content of their `results.json`.
        sweep: Name of the sweep.

    Returns:
        Lists and numbers for JSON; undefined values are null. `rows`: all variants.
        `runs`: accuracy at the end by view and task. `accuracy`: by stream, variant and
        view, the mean over the tasks that the streams beside it have as well,
        summarized over seeds. `transfer`: by name of what stands beside, stream,
        variant and view, `metrics.transfer_across_modalities` over seeds, and by
        `view/task` for each task alone; with the p-value of a paired t test, and that
        after Holm's correction over streams and variants. Over all streams, a seed
        counts once, with its mean, where it has all of them.
    """
    last = {(r.variant, r.stream, r.seed): _last(found) for r, found in ended}
    accuracy: dict[str, dict[str, _Values]] = {}
    transfer: dict[str, dict[str, dict[str, _Values]]] = {}
    for run, _ in ended:
        own = last[run.variant, run.stream, run.seed]
        place = run.variant, run.seed
        for name, stream in run.beside.items():
            other = last.get((run.variant, stream, run.seed))
            if other is None:
                continue
            of = transfer.setdefault(name, {}).setdefault(run.stream, {})
            for key, value in _gains(own, other).items():
                of.setdefault(key, {})[place] = value
            for at, each in ((run.stream, own), (stream, other)):
                for key, value in _means(each, own, other).items():
                    accuracy.setdefault(at, {}).setdefault(key, {})[place] = value
    for streams in transfer.values():
        streams[ALL_STREAMS] = _over_streams([*streams.values()])
    return plain(
        {
            "sweep": sweep,
            "rows": list(dict.fromkeys(run.variant for run, _ in ended)),
            "runs": [
                {
                    "variant": run.variant,
                    "stream": run.stream,
                    "seed": run.seed,
                    "accuracy": last[run.variant, run.stream, run.seed],
                    "environment": results["environment"],
                }
                for run, results in ended
            ],
            "accuracy": {at: _summaries(found) for at, found in accuracy.items()},
            "transfer": {name: _tested(streams) for name, streams in transfer.items()},
        }
    )


def _last(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the accuracy on each task at the end, by view and name."""
    names = [task["name"] for task in results["tasks"]]
    found = {}
    for view in _TITLES:
        space, route = VIEWS[view]
        row = results["accuracy"][space][route][-1]
        values = [float("nan") if each is None else float(each) for each in row]
        found[view] = dict(zip(names, values, strict=True))
    return found


def _common(
    one: Mapping[str, float], other: Mapping[str, float]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Returns the tasks that both have, which are those of the later modality."""
    names = [name for name in one if name in other]
    first, second = (np.array([x[name] for name in names]) for x in (one, other))
    return names, first, second


def _gains(
    own: dict[str, dict[str, float]], other: dict[str, dict[str, float]]
) -> dict[str, float]:
    found = {}
    for view in _TITLES:
        names, with_others, without = _common(own[view], other[view])
        gain = metrics.transfer_across_modalities(with_others, without)
        found[view] = gain
        each = (with_others - without).tolist()
        found |= {f"{view}/{n}": x for n, x in zip(names, each, strict=True)}
    return found


def _means(
    each: dict[str, dict[str, float]],
    own: dict[str, dict[str, float]],
    other: dict[str, dict[str, float]],
) -> dict[str, float]:
    return {
        view: float(
            np.mean([each[view][n] for n in _common(own[view], other[view])[0]])
        )
        for view in _TITLES
    }


def _over_streams(streams: list[dict[str, _Values]]) -> dict[str, _Values]:
    """Returns means over streams; tasks differ between them and are left out."""
    found: dict[str, _Values] = {}
    for view in _TITLES:
        for place in streams[0][view]:
            if all(place in stream[view] for stream in streams):
                mean = float(np.mean([stream[view][place] for stream in streams]))
                found.setdefault(view, {})[place] = mean
    return found


def _by_variant(values: _Values) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for (variant, _), value in values.items():
        found.setdefault(variant, []).append(value)
    return found


def _summaries(found: dict[str, _Values]) -> dict[str, dict[str, Any]]:
    summaries: dict[str, dict[str, Any]] = {}
    for key, values in found.items():
        for variant, own in _by_variant(values).items():
            summary = statistics.summary(own)._asdict()
            summaries.setdefault(variant, {})[key] = summary
    return summaries


def _tested(streams: dict[str, dict[str, _Values]]) -> dict[str, Any]:
    """Returns summaries with p-values, corrected over all streams and variants.

    Means over all streams are corrected among themselves.
    """
    summaries = {at: _summaries(found) for at, found in streams.items()}
    families: dict[tuple[bool, str], list[dict[str, Any]]] = {}
    for at, variants in summaries.items():
        for entries in variants.values():
            for key, entry in entries.items():
                families.setdefault((at == ALL_STREAMS, key), []).append(entry)
    for entries in families.values():
        p_values = [statistics.t_test(entry["values"]) for entry in entries]
        adjusted = statistics.holm(p_values)
        for entry, p, p_holm in zip(entries, p_values, adjusted, strict=True):
            entry |= {"p_value": p, "p_holm": p_holm}
    return summaries


def write(report: dict[str, Any], folder: pathlib.Path) -> None:
    """Writes `transfer.json` and `transfer.md`."""
    write_text(folder / "transfer.json", json.dumps(report, indent=1) + "\n")
    write_text(folder / "transfer.md", to_markdown(report))


def to_markdown(report: dict[str, Any], level: int = 1) -> str:
    """Returns tables for people, in percent and points.

    Args:
        report: What `compare` gives.
        level: Level of the headings.
    """
    parts, mark = [], "#" * level
    for view, title in _TITLES.items():
        parts.append(f"{mark} Accuracy, {title}\n")
        parts.append(_table(report["accuracy"], view, _mean))
        for name, found in report["transfer"].items():
            # all streams first
            streams = {ALL_STREAMS: found[ALL_STREAMS]} | found
            parts.append(f"{mark} Transfer, less the stream {name}, {title}\n")
            parts.append(_table(streams, view, gain))
    return "\n".join(parts)


def _table(
    streams: dict[str, Any], key: str, cell: Callable[[dict[str, Any]], str]
) -> str:
    """Returns variants by streams as Markdown."""
    variants = dict.fromkeys(v for of in streams.values() for v in of)
    rows = [
        [f"`{variant}`"]
        + [
            cell(of[variant][key]) if key in of.get(variant, {}) else "-"
            for of in streams.values()
        ]
        for variant in variants
    ]
    return markdown_table(["", *streams], rows)


def _mean(entry: dict[str, Any]) -> str:
    return f"{100 * entry['mean']:.1f}" + _deviation(entry)


def _deviation(entry: dict[str, Any]) -> str:
    found = entry["deviation"]
    return "" if found is None else f" ± {100 * found:.1f}"


def gain(entry: dict[str, Any]) -> str:
    """Returns a gain in points with its interval, and a star where it is clear."""
    text = f"{100 * entry['mean']:+.1f}"
    if entry["low"] is not None:
        text += f" [{100 * entry['low']:+.1f}, {100 * entry['high']:+.1f}]"
    clear = entry["p_holm"] is not None and entry["p_holm"] < _CLEAR
    return text + " *" * clear
