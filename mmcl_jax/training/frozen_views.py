"""All that heads on a frozen encoder are made of, as plain arrays."""

import pathlib
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from mmcl_jax.models.specs import layer_width
from mmcl_jax.streams.base import Record
from mmcl_jax.training.batches import Feed, ahead
from mmcl_jax.training.build import Run

_README = """\
# Frozen features of {tasks} tasks

Written by `python -m mmcl_jax.verify`. `features.npz` holds, of {samples} samples
([n], training and test) and {classes} class slots ([C]):

| array | shape | meaning |
|---|---|---|
| `query` | [n, d] | unit embedding by the frozen encoder; what the router reads |
| `layers` | [n, w] | mean tokens of its last {blocks} blocks but the final, padded |
| `label`, `task`, `is_test` | [n] | class slot, task, and whether it is a test sample |
| `text` | [C, d] | unit text embedding of each class |
| `class_names`, `class_modality` | [C] | name, and place in `modalities` |
| `modalities`, `layer_widths` | [m] | names, and the width of their `layers` |
| `task_names`, `logit_scale` | | names of the tasks, factor of cosines |

This program prints the last average accuracy of closed-form methods, the mean over
tasks in percent, among the classes of the modality that is given or predicted. The
`results.json` of their runs has it under `metrics/routed`.

```python
{program}```
"""

PROGRAM = """\
import numpy as np
from scipy.special import log_softmax, logsumexp

data = np.load("features.npz")
q, h, text = (data[name].astype(float) for name in ("query", "layers", "text"))
y, of, test = data["label"], data["class_modality"], data["is_test"]
train, d = ~test, q.shape[1]
present = np.unique(of)


def means(x):
    return np.stack([x[train & (y == c)].mean(0) for c in range(len(of))])


def shrunk(S, rho, p):  # the used dimensions of a narrower tower come first
    return ((1 - rho) * S + rho * np.trace(S) / p * np.eye(len(S)))[:p, :p]


def router(x):  # log p(modality | query), up to a constant
    mu = means(q)
    r = q[train] - mu[y[train]]
    S = shrunk(r.T @ r / (len(r) - len(of)), 0.01, d)
    a = np.linalg.solve(S, (mu - mu.mean(0)).T)
    b = -0.5 * np.sum((mu + mu.mean(0)) * a.T, 1) - np.log(np.bincount(of)[of])
    scores = x @ a + b
    return np.stack([logsumexp(scores[:, of == k], axis=1) for k in present], 1)


def discriminant(x, p, own):  # log p(class | view) among the classes of a modality
    mu, rows = means(x)[own, :p], train & np.isin(y, own)
    r = x[rows][:, :p] - mu[np.searchsorted(own, y[rows])]
    S, n = r.T @ r / len(r), len(r)
    t, t2 = np.trace(S), np.trace(S @ S)
    rho = ((1 - 2 / p) * t2 + t**2) / ((n + 1 - 2 / p) * (t2 - t**2 / p))
    S = shrunk(S * n / (n - len(own)), min(rho, 1), p)
    a = np.linalg.solve(S, (mu - mu.mean(0)).T)
    b = -0.5 * np.sum((mu + mu.mean(0)) * a.T, 1)
    return log_softmax(x[test][:, :p] @ a + b, axis=1)


def by_modality(within):  # logits of all classes from those within each modality
    logits = np.full((test.sum(), len(of)), -np.inf)
    for k in present:
        own = np.flatnonzero(of == k)
        logits[:, own] = within(k, own)
    return logits


def ncm(k, own):
    mu = means(q)[own]
    return q[test] @ (mu / np.linalg.norm(mu, axis=1, keepdims=True)).T


def ridge(k, own):
    rows = train & np.isin(y, own)
    x, z = (np.append(q[r], np.ones((r.sum(), 1)), 1) for r in (rows, test))
    G = x.T @ x
    G += RIDGE * np.trace(G) / len(G) * np.eye(len(G))
    return z @ np.linalg.solve(G, x.T @ (y[rows][:, None] == own))


def slda(k, own):  # sample by sample, in the order of the file
    S, mu, count = np.zeros((d, d)), np.zeros((len(of), d)), np.zeros(len(of))
    for i in np.flatnonzero(train & np.isin(y, own)):
        v, n = q[i] - mu[y[i]], count.sum()
        S += n / (n + 1) * np.outer(v, v)
        count[y[i]] += 1
        mu[y[i]] += v / count[y[i]]
    S = (1 - IDENTITY) * S / count.sum() + IDENTITY * np.eye(d)
    a = np.linalg.solve(S, mu[own].T)
    return q[test] @ a - 0.5 * np.sum(mu[own] * a.T, 1)


def comm_plus(k, own):
    views = (1 - SHARE, q, d), (SHARE, h, data["layer_widths"][k])
    parts = [a * discriminant(x, p, own) for a, x, p in views if a]
    return log_softmax(sum(parts), axis=1)


# ridge.regularization, slda.shrinkage, comm_plus.layer_share
RIDGE, IDENTITY, SHARE = 1e-3, 1e-4, 0.75
found, of_sample = router(q[test]), of[y[test]]
name = np.char.lower(data["class_names"])  # the same name in two modalities is right
for method in (ncm, ridge, slda, comm_plus):
    logits = by_modality(method)
    for route in ("given", "predicted"):
        modality = of_sample if route == "given" else present[found.argmax(1)]
        answer = np.where(of == modality[:, None], logits, -np.inf).argmax(1)
        right, tasks = name[answer] == name[y[test]], data["task"][test]
        hits = [right[tasks == t].mean() for t in np.unique(tasks)]
        print(method.__name__, route, round(100 * np.mean(hits), 2))
"""


_COLUMNS = ("query", "layers", "label", "task", "is_test")


class FrozenViews(NamedTuple):
    """Features of all samples of a stream, and its classes.

    Attributes:
        query: Unit embeddings by the frozen encoder, which the router reads.
        layers: Layer features, padded with zeros where a tower is narrower.
        label: Class slot of each sample.
        task: Task of each sample.
        is_test: Whether it is a test sample.
        text: Unit text embeddings of the class slots.
        class_names: Their names.
        class_modality: Modality of each slot, its place in `modalities`.
        modalities: Names of the modalities that the encoder reads.
        layer_widths: Width of the layer features of each.
        task_names: Names of the tasks.
        logit_scale: Factor of cosines in logits.
    """

    query: Float[np.ndarray, "n d"]
    layers: Float[np.ndarray, "n w"]
    label: Int[np.ndarray, " n"]
    task: Int[np.ndarray, " n"]
    is_test: Bool[np.ndarray, " n"]
    text: Float[np.ndarray, "C d"]
    class_names: np.ndarray
    class_modality: Int[np.ndarray, " C"]
    modalities: np.ndarray
    layer_widths: Int[np.ndarray, " m"]
    task_names: np.ndarray
    logit_scale: Float[np.ndarray, ""]


def frozen_views(run: Run, blocks: int) -> FrozenViews:
    """Embeds all training and test samples of a stream with the frozen encoder.

    Args:
        run: The run, whose method is not used.
        blocks: Number of blocks that the layer features are of.
    """
    stream, model = run.stream, run.model
    frozen = jax.device_put(run.encoder.frozen)
    feed = Feed(run, frozen)
    towers = [model.spec.tower(name) for name in model.towers]
    widths = np.array([layer_width(tower, blocks) for tower in towers])
    layers_of = jax.jit(
        lambda frozen, batch: model.embed_layers(
            frozen, batch.modality, batch.inputs, None, blocks
        )[1]
    )
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    for i, task in enumerate(stream.tasks):
        for part in ("train", "test"):
            rows: list[Record] = list(getattr(task, part))
            if not rows:
                continue
            feed.embed_queries([i], part)
            batches = feed.batches({task.modality: rows})
            found = [
                jax.device_get(x) for x in ahead(layers_of(frozen, b) for b in batches)
            ]
            layers = np.concatenate(found)[: len(rows)]
            missing = widths.max() - layers.shape[1]
            columns["query"].append(feed.queries(rows))
            columns["layers"].append(np.pad(layers, ((0, 0), (0, missing))))
            columns["label"].append(np.array([row.label for row in rows]))
            columns["task"].append(np.full(len(rows), i))
            columns["is_test"].append(np.full(len(rows), part == "test"))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    places = [model.modalities.index(slot.modality) for slot in stream.classes]
    return FrozenViews(
        **joined,
        text=feed.embed_class_names(),
        class_names=np.array([slot.name for slot in stream.classes]),
        class_modality=np.array(places),
        modalities=np.array(model.modalities),
        layer_widths=widths,
        task_names=np.array([task.name for task in stream.tasks]),
        logit_scale=np.array(model.logit_scale),
    )


def write_views(run: Run, blocks: int, folder: pathlib.Path) -> None:
    """Writes `features.npz` and `README.md` into a new folder.

    Args:
        run: The run, whose method is not used.
        blocks: Number of blocks that the layer features are of.
        folder: The folder, which does not exist.
    """
    views = frozen_views(run, blocks)
    folder.mkdir(parents=True)
    np.savez(folder / "features.npz", **views._asdict())
    text = _README.format(
        tasks=len(views.task_names),
        samples=len(views.label),
        classes=len(views.class_names),
        blocks=blocks,
        program=PROGRAM,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
