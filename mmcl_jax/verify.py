"""Writes frozen features for checking closed forms by hand.

A new folder gets `features.npz`, plain arrays, and a `README.md` with a short NumPy
program that derives the results of closed-form methods from them, without this package.

Examples:
  mmcl-verify --config=demo --out=features
  mmcl-verify --config=real:2 --config.stream.root=DATA --out=features
"""

import dataclasses
import pathlib
import sys

import numpy as np
from absl import flags, logging
from rich.console import Console

from mmcl_jax import config as configs
from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.methods.comm_plus import Options as CommPlus
from mmcl_jax.parallel import compilation_cache
from mmcl_jax.training import build
from mmcl_jax.training.frozen_views import frozen_views

_CONFIG = command_line.define_config(
    "Config with encoder and stream; its method is not used."
)
_OUT = command_line.define_path("out", None, "New folder for the features.")

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


def comm_plus(k, own):
    views = (1 - SHARE, q, d), (SHARE, h, data["layer_widths"][k])
    parts = [a * discriminant(x, p, own) for a, x, p in views if a]
    return log_softmax(sum(parts), axis=1)


RIDGE, SHARE = 1e-3, 0.75  # regularization of ridge, layer_share of comm_plus
found, of_sample = router(q[test]), of[y[test]]
for method in (ncm, ridge, comm_plus):
    logits = by_modality(method)
    for route in ("given", "predicted"):
        modality = of_sample if route == "given" else present[found.argmax(1)]
        answer = np.where(of == modality[:, None], logits, -np.inf).argmax(1)
        tasks = data["task"][test]
        hits = [(answer == y[test])[tasks == t].mean() for t in np.unique(tasks)]
        print(method.__name__, route, round(100 * np.mean(hits), 2))
"""


def main(argv: list[str]) -> None:
    """Writes the folder; bad input ends with exit code 2."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        command_line.refuse_arguments(argv)
        compilation_cache.keep_compiled_programs()
        given = command_line.required(_CONFIG.value, "configs/demo.py")
        if not _OUT.value:
            raise ConfigError("--out: missing; for instance --out=features")
        folder = pathlib.Path(_OUT.value)
        if folder.exists():
            raise ConfigError(f"--out: {folder} exists; give a new folder")
        unused = configs.MethodOptions("zero_shot")
        chosen = dataclasses.replace(configs.resolve(given), method=unused)
        run = build.assemble(chosen, Console(stderr=True))
        write(run, folder)
    except (ConfigError, DataError, ValueError) as error:
        sys.exit(command_line.complain(error))
    print(folder)


def write(run: build.Run, folder: pathlib.Path) -> None:
    """Writes `features.npz` and `README.md` into a new folder."""
    blocks = CommPlus().blocks
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


def cli() -> None:
    """Runs the program."""
    command_line.run(main, with_config=True)


if __name__ == "__main__":
    cli()
