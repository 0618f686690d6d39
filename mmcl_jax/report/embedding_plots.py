"""The section that shows features and class texts in two dimensions, for one run."""

import numpy as np

from mmcl_jax.report import theme
from mmcl_jax.report.blocks import Key, Panels, Section
from mmcl_jax.report.charts import Cloud, Points, shown
from mmcl_jax.report.run_data import RunData
from mmcl_jax.workdir.predictions import StoredEmbeddings

_POINTS = 600


def embeddings(run: RunData) -> Section:
    """Returns features and class texts in two dimensions."""
    about = (
        "First two principal components, separately for each panel. First: unit "
        "embeddings of some test samples by the frozen encoder, and of class texts, "
        "which are hollow (embeddings.npz). "
    )
    title, arrays = "Embeddings", run.embeddings
    if arrays is None:
        reason = "the workdir has no embeddings.npz, which evaluation writes"
        return Section("embeddings", title, about, absent=reason)
    charts = [_samples(run, arrays)]
    geometry = run.history.geometry
    if {"count", "frozen"} <= geometry.keys():
        about += (
            "Then the class means of layer features in the newest snapshot, of the "
            "frozen encoder and, where the method trains one, under the adapter, where "
            "the means of earlier classes have followed its drift."
        )
        charts += _means(run, geometry)
    else:
        reason = run.history.absent["geometry"]
        about += f"No panel shows layer features: {reason}."
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


def _means(run: RunData, geometry: dict[str, np.ndarray]) -> list[Points]:
    used = np.flatnonzero(geometry["count"] > 0)
    none, charts = np.zeros(0, int), []
    for name, title in (
        ("frozen", "Class means of layer features, frozen"),
        ("adapted", "Class means of layer features, adapted"),
    ):
        if name in geometry:
            places, explained = _plane(geometry[name][used].astype(np.float64))
            clouds = _clouds(run, used, places, none, np.zeros((0, 2)))
            charts.append(Points(f"embeddings-{name}-means", title, clouds, explained))
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


def _centred(vectors: np.ndarray) -> np.ndarray:
    return vectors - vectors.mean(0)
