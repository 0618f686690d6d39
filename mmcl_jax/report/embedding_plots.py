"""The section that shows features and class texts in two dimensions, for one run."""

import numpy as np

from mmcl_jax.report import theme
from mmcl_jax.report.blocks import Key, Panels, Section
from mmcl_jax.report.charts import Cloud, Points, shown
from mmcl_jax.report.run_data import RunData
from mmcl_jax.workdir.predictions import StoredEmbeddings

_POINTS = 600
_RIDGE = 1e-4


def embeddings(run: RunData) -> Section:
    """Returns features and class texts in two dimensions."""
    about = (
        "First two principal components of unit vectors, separately for each panel. "
        "Filled: features; hollow: class texts. Left: some test samples, embedded by "
        "the frozen encoder (embeddings.npz). "
    )
    title, arrays = "Embeddings", run.embeddings
    if arrays is None:
        reason = "the workdir has no embeddings.npz, which evaluation writes"
        return Section("embeddings", title, about, absent=reason)
    charts = [_samples(run, arrays)]
    geometry, text = run.history.geometry, arrays.text.astype(np.float64)
    if {"mean", "count", "matrix"} <= geometry.keys():
        about += (
            "Then the class means of adapted features in the newest snapshot, before "
            "and after the re-alignment, with a line to their class text; centred, and "
            "in coordinates in which the texts are uncorrelated, which preserves the "
            "inner products of features and texts."
        )
        charts += _means(run, geometry, text)
    else:
        reason = run.history.absent["geometry"]
        about += f"No panel shows a re-alignment: {reason}."
    marks = theme.of_modalities(run.modalities)
    legend = tuple(Key(m, marks[m]) for m in run.modalities)
    return Section("embeddings", title, about, (Panels(tuple(charts), legend),))


def _samples(run: RunData, arrays: StoredEmbeddings) -> Points:
    rows = np.arange(len(arrays.label))
    rows = rows[:: max(1, len(rows) // _POINTS)]
    label = arrays.label[rows]
    used = np.unique(label)
    text = arrays.text.astype(np.float64)[used]
    query = arrays.query.astype(np.float64)[rows]
    places, explained = _plane(np.concatenate([query, text]))
    return Points(
        "embeddings-frozen",
        "Frozen encoder: test samples",
        _clouds(run, label, places[: len(label)], used, places[len(label) :]),
        explained,
    )


def _means(
    run: RunData, geometry: dict[str, np.ndarray], text: np.ndarray
) -> list[Points]:
    used = np.flatnonzero(geometry["count"] > 0)
    mean = geometry["mean"][used].astype(np.float64)
    moved = mean @ geometry["matrix"]
    if "shift" in geometry:
        names = [slot.modality for slot in run.stream.classes]
        own = [run.modalities.index(names[c]) for c in used]
        moved = moved + geometry["shift"][own]
    root, inverse = _roots(text[used])
    texts, charts = text[used] @ inverse, []
    for name, title, features in (
        ("before", "Class means before re-alignment", mean),
        ("after", "Class means after re-alignment", moved),
    ):
        unit = [_unit(_centred(features @ root)), _unit(_centred(texts))]
        places, explained = _plane(np.concatenate(unit))
        here, there = places[: len(used)], places[len(used) :]
        links = tuple(
            (tuple(a), tuple(b))
            for a, b in zip(here.tolist(), there.tolist(), strict=True)
        )
        clouds = _clouds(run, used, here, used, there)
        charts.append(Points(f"embeddings-{name}", title, clouds, explained, links))
    return charts


def _clouds(
    run: RunData,
    label: np.ndarray,
    features: np.ndarray,
    text_label: np.ndarray,
    texts: np.ndarray,
) -> tuple[Cloud, ...]:
    """Returns the points of each modality: features, and texts of its classes."""
    slots, marks, clouds = (
        run.stream.classes,
        theme.of_modalities(run.modalities),
        [],
    )
    modality = np.array([slot.modality for slot in slots])
    for name in run.modalities:
        for labels, points, of_text in (
            (label, features, False),
            (text_label, texts, True),
        ):
            rows = np.flatnonzero(modality[labels] == name)
            if len(rows):
                clouds.append(
                    Cloud(
                        f"{shown(name)}, class text" if of_text else shown(name),
                        marks[name],
                        tuple(map(tuple, points[rows].tolist())),
                        tuple(shown(slots[labels[r]].name) for r in rows),
                        of_text,
                    )
                )
    return tuple(clouds)


def _plane(vectors: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns the first two principal components `[n 2]`, with a fixed sign.

    Also the share of the variance that each explains.
    """
    centred = _centred(vectors)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    shares = variances[::-1][:2] / max(variances.sum(), 1e-12)
    axes = axes[:, ::-1][:, :2]
    largest = np.abs(axes).argmax(0)
    places = centred @ (axes * np.sign(axes[largest, [0, 1]]))
    return places, (float(shares[0]), float(shares[1]))


def _roots(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the symmetric root of `U^T U`, with a small ridge, and its inverse.

    Features times the root and texts U times its inverse keep their inner products.
    """
    size, axes = np.linalg.eigh(text.T @ text)
    size = np.sqrt(np.maximum(size, 0) + _RIDGE * max(size.sum() / len(text), 1e-12))
    return (axes * size) @ axes.T, (axes / size) @ axes.T


def _centred(vectors: np.ndarray) -> np.ndarray:
    return vectors - vectors.mean(0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1)
