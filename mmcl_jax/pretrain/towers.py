"""Training both towers, and writing the encoder that they make."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models import pretrained
from mmcl_jax.models.specs import EncoderSpec
from mmcl_jax.ops import rngs
from mmcl_jax.pretrain import (
    samples,
    teachers,
    text_samples,
    text_tower,
    training,
    visual_tower,
)
from mmcl_jax.types import PyTree


def _optimizer(options) -> Any:
    return training.optimizer(
        options.steps,
        options.learning_rate,
        options.warmup_steps,
        options.weight_decay,
    )


def train(config, taught_by: teachers.Teachers, output: pathlib.Path) -> None:
    """Makes samples and targets, trains both towers, and writes the encoder.

    Args:
        config: Result of `configs/pretrain.py`.
        taught_by: The teachers.
        output: Folder of the encoder.
    """
    work = output / "work"
    work.mkdir(parents=True, exist_ok=True)
    lessons = text_samples.prepare(config, taught_by, work, output)
    text, text_curve = _train_text(config, lessons, work)
    seen = samples.prepare(config, taught_by, lessons, work)
    spec = lessons.spec
    tower, visual_curve = _train_visual(config, spec, seen, work)
    frozen = _assembled(text, tower, seen.stem)
    preprocessing = config.preprocessing.to_dict()
    pretrained.save(output, spec, frozen, preprocessing, np.float16)
    report = {
        "config": config.to_dict(),
        "curves": {"text": text_curve, "visual": visual_curve},
    }
    (output / "training.json").write_text(json.dumps(report, indent=1) + "\n")


def _train_text(config, lessons: text_samples.Lessons, work: pathlib.Path) -> tuple:
    spec = lessons.spec.text
    key = rngs.key(config.seed, "text")
    weights = text_tower.init(key, spec, config.embedding, lessons.kinds)
    embed = text_tower.make_embed(spec)
    return training.fit(
        text_tower.make_loss(spec),
        weights,
        _optimizer(config.text_training),
        text_tower.batches(lessons.kinds, config.text_batch.to_dict(), config.seed),
        config.text_training.steps,
        text_tower.evaluate(embed, lessons.probes),
        config.evaluate_every,
        work / "text.npz",
    )


def _train_visual(
    config, spec: EncoderSpec, seen: samples.Samples, work: pathlib.Path
) -> tuple:
    tower, counts = samples.visual_spec(spec), config.visual_batch.to_dict()
    key = rngs.key(config.seed, "visual")
    weights = visual_tower.init(
        key, tower, spec.embedding, seen.taught.features.shape[1]
    )
    loss = visual_tower.make_loss(
        tower, seen.pictures, seen.others, config.visual_training.pace
    )
    return training.fit(
        loss,
        weights,
        _optimizer(config.visual_training),
        visual_tower.batches(
            seen.pictures, seen.taught, seen.others, counts, config.seed
        ),
        config.visual_training.steps,
        visual_tower.evaluate(visual_tower.make_embed(tower), seen.probes),
        config.evaluate_every,
        work / "visual.npz",
    )


def _assembled(text: PyTree, visual: PyTree, stem: PyTree) -> PyTree:
    """Returns the encoder's weights; the scale is that of the visual tower."""
    scale = jnp.minimum(visual["log_scale"], jnp.log(100.0))
    words = {name: leaf for name, leaf in text.items() if name != "log_scale"}
    tree = {"visual": visual["tower"] | {"stem": stem}, "text": words}
    return jax.tree.map(np.asarray, tree | {"log_scale": scale})
