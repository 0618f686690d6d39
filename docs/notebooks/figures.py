# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a workdir to figures
#
# What a run leaves is plain: JSON files, and `.npz` files of plain arrays. This
# notebook reads one and draws what a paper or a talk needs. Make a run first, in the
# repository's folder, with
#
#     python -m mmcl_jax.main --config=configs/demo.py:method=comm_plus \
#         --workdir=runs/demo
#
# and name it below, or in the variable `WORKDIR` of the environment. The same as a
# script: `WORKDIR=runs/demo python docs/notebooks/figures.py`.

# %%
import os
import pathlib

import matplotlib.pyplot as plt
import numpy as np

import mmcl_jax
from mmcl_jax.evaluation import metrics
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.report import curves, page, run_loader

plt.rcParams["figure.dpi"] = 72
WORKDIR = pathlib.Path(os.environ.get("WORKDIR", "../../runs/demo"))
run = run_loader.load(WORKDIR)
print(f"{run.method}, {len(run.rows)} of {len(run.stream.stages)} stages learnt")
for number, task in enumerate(run.tasks, start=1):
    print(f"{number:2d} {task['modality']:6s} {', '.join(task['classes'])}")

# %% [markdown]
# ## The accuracy matrix
#
# Row: after which task. Column: on whose test set. Above the diagonal only the next
# task is scored, and only in the label spaces that hold its classes. Here all classes
# seen may win (`union`), and the modality is not given (`predicted`).

# %%
accuracy = run.accuracy("union", "predicted")
numbers = range(1, len(run.tasks) + 1)
figure, axes = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
shown = axes.imshow(accuracy, vmin=0, vmax=1, cmap="viridis")
axes.set(xlabel="test set of task", ylabel="after task")
axes.set_xticks(np.arange(len(run.tasks)), numbers)
axes.set_yticks(np.arange(len(run.tasks)), numbers)
figure.colorbar(shown, label="accuracy")
plt.show()

# %% [markdown]
# ## Accuracy and forgetting over time
#
# Every metric is a function of the matrix, so its value after task i is that of the
# matrix cut to i rows and columns. `curves.curve` does that, for the test sets of one
# modality if one is named. The frozen encoder, dashed, learns nothing: it shows what
# the growing number of classes costs by itself.

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for axes, (title, metric) in zip(
    panels,
    {
        "average accuracy": metrics.last_average_accuracy,
        "forgetting": metrics.forgetting_chaudhry,
    }.items(),
    strict=True,
):
    after = [row + 1 for row in run.rows]
    for name in run.modalities:
        values = curves.curve(run, metric, "union", "predicted", name)
        axes.plot(after, values, marker="o", markersize=3, label=name)
    values = curves.curve(run, metric, "union", "predicted")
    axes.plot(after, values, color="black", linewidth=2, label="all")
    values = curves.curve(run, metric, "union", "zero_shot")
    axes.plot(after, values, color="grey", linestyle="--", label="frozen encoder")
    axes.set(xlabel="after task", ylabel=title)
panels[0].legend(fontsize="small")
plt.show()

# %% [markdown]
# ## What it costs not to be told the modality
#
# Two things may be known of a sample's modality: which classes can win, and which
# prompts to take. `metrics.decomposition` splits what is lost between knowing both
# and neither.

# %%
cells = {
    (space, route): metrics.last_average_accuracy(run.accuracy(space, route))
    for route in ("given", "predicted")
    for space in ("modality", "union")
}
for (space, route), value in cells.items():
    print(f"classes: {space:8s}  modality: {route:9s}  {100 * value:.1f} %")
parts = metrics.decomposition(*cells.values())
print(f"all of it {100 * parts.gap:.1f} points, of which, in either order:")
for part in ("label_confusion", "routing"):
    print(f"{part:15s}", *(f"{100 * value:5.1f}" for value in getattr(parts, part)))

# %% [markdown]
# ## Which modality a sample is taken for

# %%
confusion = np.array(run.results["modality_identification"]["confusion"])
figure, axes = plt.subplots(figsize=(3.8, 3.2), layout="constrained")
axes.imshow(
    confusion / confusion.sum(axis=1, keepdims=True), vmin=0, vmax=1, cmap="Blues"
)
for (i, j), count in np.ndenumerate(confusion):
    colour = "white" if 2 * count > confusion[i].sum() else "black"
    axes.text(j, i, count, color=colour, ha="center", va="center", fontsize="small")
axes.set_xticks(range(len(run.modalities)), run.modalities, rotation=45)
axes.set_yticks(range(len(run.modalities)), run.modalities)
axes.set(xlabel="taken for", ylabel="is")
plt.show()

# %% [markdown]
# ## Single predictions
#
# `predictions/` has one file per stage with the prediction for each test sample, in
# each label space and on each route, so that any number can be computed again: the
# last row of the matrix above, and the worst mistakes.

# %%
predictions = run.history.newest
names = [slot.name for slot in run.stream.classes]
canonical = np.array([slot.canonical for slot in run.stream.classes])
label = predictions.label
chosen = predictions.chosen[SPACES.index("union"), ROUTES.index("predicted")]
right = canonical[chosen] == canonical[label]
again = [right[predictions.task == task].mean() for task in range(len(run.tasks))]
assert np.allclose(again, accuracy[-1])
for own, other, count in metrics.most_confused(label, chosen, canonical, 5):
    print(f"{count} of {np.sum(label == own)}: {names[own]}, taken for {names[other]}")

# %% [markdown]
# ## What the frozen encoder sees
#
# `embeddings.npz` has its features of some test samples, and its texts of all
# classes. Two principal components show how modalities lie apart, from each other and
# from the texts of their classes.

# %%
arrays = run.embeddings
features = np.concatenate([arrays.query, arrays.text]).astype(np.float64)
features -= features.mean(axis=0)
_, _, directions = np.linalg.svd(features, full_matrices=False)
places = features @ directions[:2].T
of_class = [slot.modality for slot in run.stream.classes]
modality = np.array([of_class[c] for c in arrays.label])
figure, axes = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
samples, texts = places[: len(modality)], places[len(modality) :]
for name in run.modalities:
    axes.scatter(*samples[modality == name].T, s=6, label=name)
axes.scatter(*texts.T, s=24, facecolors="none", edgecolors="black", label="class texts")
axes.set(xticks=[], yticks=[])
figure.legend(fontsize="small", loc="outside right upper")
plt.show()

# %% [markdown]
# ## The run as a learner
#
# `mmcl_jax.Learner` labels samples, and teaches the run more: `learner.learn("NEW")` is
# what `python -m mmcl_jax.extend` does. Here it is asked about a sentence.

# %%
learner = mmcl_jax.Learner.load(WORKDIR)
(said,) = learner.predict([mmcl_jax.TextReference("a spinning star")], top=3)
for label in said.labels:
    print(f"{100 * label.probability:5.1f} %  {label.name}")

# %% [markdown]
# ## All figures and tables at once
#
# The report does what this notebook does, and more: each figure as SVG and PNG with
# its numbers as CSV, each table as CSV and LaTeX. Several runs give means and
# intervals.

# %%
written = page.write([run], WORKDIR.with_name(f"{WORKDIR.name}-figures"))
print(f"{len(written)} files in {written[0].parent.name}")
print(sorted({path.suffix for path in written}))
