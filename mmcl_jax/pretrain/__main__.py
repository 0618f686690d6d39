"""Trains the built-in encoder on base concepts of the procedural world.

`python -m mmcl_jax.pretrain --config=configs/pretrain.py --output=DIR` writes
`config.json`, `tokenizer.json`, `model.safetensors` and, with the training curve,
`training.json`. Concepts of streams are never rendered.
"""

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import pathlib
import sys
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, logging
from jaxtyping import Array, Float

from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import InputSpec, TokenizerSpec
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models import pretrained, tokenizer
from mmcl_jax.models.specs import EncoderSpec, TowerSpec, clip
from mmcl_jax.ops import rngs
from mmcl_jax.streams.world.concepts import BASE, DEVELOPMENT, MANNERS, SHAPES, Concept
from mmcl_jax.streams.world.render import render
from mmcl_jax.types import Key, PyTree

_CONFIG = command_line.define_config("Config of the encoder and of its training.")
_OUTPUT = command_line.define_path(
    "output", "runs/encoder", "Folder to which the encoder is written."
)

VISUAL = ("image", "video", "audio", "depth")
# Seeds of rendered samples, disjoint from those of streams.
_TRAIN_SEED, _PROBE_SEED = 2_000_000_000, 2_100_000_000


def captions(concept: Concept, seed: int) -> str:
    """Returns one of the many sentences that describe a concept in training."""
    rng = np.random.default_rng([seed, concept.shape, concept.manner])
    if rng.random() < 0.5:
        return render(concept, "text", _TRAIN_SEED + seed)
    templates = MODALITIES[VISUAL[rng.integers(len(VISUAL))]].templates
    return templates[rng.integers(len(templates))].format(concept.name)


def parts() -> list[str]:
    """Returns captions that say less: the shape alone, then the manner alone."""
    return [f"a {name}" for name in SHAPES] + [f"something {name}" for name in MANNERS]


def fit_tokenizer(path: pathlib.Path, vocabulary: int) -> None:
    """Fits the tokenizer to sentences of base concepts and writes it."""
    sentences = [captions(concept, seed) for seed in range(64) for concept in BASE]
    tokenizer.train(sentences, vocabulary).save(str(path))


def _render_pixels(
    modality: str, samples: list[tuple[Concept, int]], spec: InputSpec
) -> np.ndarray:
    """Renders samples to half-precision pixels `[n, s, s, 3]`."""
    rows = []
    for concept, seed in samples:
        media = render(concept, modality, seed)
        kind = modality
        if modality == "video":
            # The tower reads single frames.
            media, kind = media[seed % len(media)], "image"
        pixels = MODALITIES[kind].preprocess(media, spec)["pixels"]
        rows.append(pixels[0].astype(np.float16))
    return np.stack(rows)


def render_pool(
    modality: str,
    concepts: tuple[Concept, ...],
    per_concept: int,
    first_seed: int,
    spec: InputSpec,
    workers: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Renders `per_concept` samples of each concept.

    Returns:
        Pixels `[n, s, s, 3]` of float16 and the index in `concepts` of each.
    """
    labels = np.repeat(np.arange(len(concepts)), per_concept)
    seeds = first_seed + np.tile(np.arange(per_concept), len(concepts))
    samples = [(concepts[c], int(s)) for c, s in zip(labels, seeds, strict=True)]
    chunks = [samples[i : i + 500] for i in range(0, len(samples), 500)]
    # A fork of a process in which JAX has started threads may hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        done = pool.map(
            _render_pixels, [modality] * len(chunks), chunks, [spec] * len(chunks)
        )
        return np.concatenate(list(done)), labels


def batches(
    pools: dict[str, tuple[np.ndarray, np.ndarray]],
    counts: dict[str, int],
    steps: int,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pixels and labels of batches, with modalities in the order of `counts`."""
    for step in range(steps):
        rng = np.random.default_rng(rngs.host_seed(seed, "pretrain", step))
        picks = {
            name: rng.integers(len(pools[name][1]), size=count)
            for name, count in counts.items()
        }
        pixels = np.concatenate([pools[n][0][rows] for n, rows in picks.items()])
        labels = np.concatenate([pools[n][1][rows] for n, rows in picks.items()])
        yield pixels.astype(np.float32), labels


def augment(
    key: Key, pixels: Float[Array, "b s s 3"], counts: dict[str, int], shift: int
) -> Float[Array, "b s s 3"]:
    """Shifts all samples, mirrors all but sounds, and permutes colours of pictures.

    Shifts wrap around. The concept never changes: spectrograms move in time only.
    """
    rows = len(pixels)
    keys = jax.random.split(key, 3)
    kind = np.repeat(list(counts), list(counts.values()))
    is_sound, has_colour = kind == "audio", np.isin(kind, ("image", "video"))
    moves = jax.random.randint(keys[0], (rows, 2), -shift, shift + 1)
    moves = moves * np.stack([~is_sound, np.ones(rows, bool)], 1)
    pixels = jax.vmap(lambda x, by: jnp.roll(x, by, (0, 1)))(pixels, moves)
    mirrored = jax.random.bernoulli(keys[1], 0.5, (rows,)) & ~is_sound
    pixels = jnp.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
    order = jnp.argsort(jax.random.uniform(keys[2], (rows, 3)), axis=1)
    order = jnp.where(has_colour[:, None], order, jnp.arange(3))
    return jnp.take_along_axis(pixels, order[:, None, None, :], axis=3)


def _encode(path: str, sentences: list[str], length: int) -> np.ndarray:
    spec = dataclasses.replace(
        _BLANK, tokenizer=TokenizerSpec(path), context_length=length
    )
    text = MODALITIES["text"]
    return np.stack([text.preprocess(s, spec)["tokens"] for s in sentences])


_BLANK = InputSpec(
    1,
    1,
    (0.0, 0.0, 0.0),
    (1.0, 1.0, 1.0),
    16000,
    1.0,
    0.0,
    1.0,
    10.0,
    8,
    TokenizerSpec(""),
)


def make_step(
    spec: EncoderSpec,
    optimizer: optax.GradientTransformation,
    counts: dict[str, int],
    shift: int,
):
    """Returns the jitted training step.

    Samples are classified among one caption of each concept, among the shapes and among
    the manners; captions are classified among other captions. All logits are cosines
    times the learnt scale, so this is CLIP's loss with every class in the batch.
    """
    shape_of = jnp.array([c.shape for c in BASE])
    manner_of = jnp.array([c.manner for c in BASE])

    def loss_fn(weights: PyTree, pixels: Array, label: Array, text: dict) -> tuple:
        features = encoders.embed(spec, weights, "image", {"pixels": pixels[:, None]})
        tokens = jnp.concatenate([text["anchors"], text["others"], text["parts"]])
        embedded = encoders.embed(spec, weights, "text", {"tokens": tokens})
        sizes = [len(BASE), len(text["others"]), len(SHAPES), len(MANNERS)]
        ends = [sum(sizes[:i]) for i in range(1, len(sizes))]
        anchors, others, shapes, manners = jnp.split(embedded, ends)
        scale = jnp.exp(jnp.minimum(weights["log_scale"], jnp.log(100.0)))

        def classify(x: Array, targets: Float[Array, "c d"], y: Array) -> Array:
            logits = scale * x @ targets.T
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        def parts(x: Array, y: Array) -> Array:
            return classify(x, shapes, shape_of[y]) + classify(x, manners, manner_of[y])

        other = text["other_label"]
        text_loss = classify(others, anchors, other) + 0.5 * parts(others, other)
        value = classify(features, anchors, label) + parts(features, label)
        value = value + 0.5 * text_loss
        hit = (features @ anchors.T).argmax(-1) == label
        return value, {"loss": value, "accuracy": hit.mean()}

    @jax.jit
    def step(weights: PyTree, state: PyTree, pixels, label, text: dict, key: Key):
        pixels = augment(key, pixels, counts, shift)
        (_, metrics), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
            weights, pixels, label, text
        )
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, metrics

    return step


def make_evaluate(spec: EncoderSpec):
    """Returns `(weights, pools, names) -> zero-shot accuracy by modality`."""
    embed = jax.jit(
        lambda w, x: encoders.embed(spec, w, "image", {"pixels": x[:, None]})
    )
    embed_names = jax.jit(
        lambda w, ids: encoders.embed(spec, w, "text", {"tokens": ids})
    )

    def evaluate(weights: PyTree, pools: dict, names: np.ndarray) -> dict[str, float]:
        text, result = embed_names(weights, names), {}
        for modality, (pixels, labels) in pools.items():
            features = [
                embed(weights, pixels[i : i + 56].astype(np.float32))
                for i in range(0, len(labels), 56)
            ]
            hits = (np.concatenate(features) @ text.T).argmax(-1) == labels
            result[modality] = round(float(hits.mean()), 4)
        return result

    return evaluate


def _spec(config) -> EncoderSpec:
    tower = lambda c: TowerSpec(  # noqa: E731
        c.width, c.layers, c.heads, 4 * c.width, "quick_gelu", 1e-5
    )
    return clip(
        visual=tower(config.visual),
        text=tower(config.text),
        embedding=config.embedding,
        image_size=config.image_size,
        patch_size=config.patch_size,
        vocabulary=config.vocabulary,
        context_length=config.context_length,
        end_token=tokenizer.SPECIAL_TOKENS.index("<end>"),
    )


def _pools(config, inputs: InputSpec) -> tuple[dict, dict, dict]:
    """Returns training samples, and probes of base and of development concepts."""
    pools, base_probes, development_probes = {}, {}, {}
    for name in VISUAL:
        render_of = functools.partial(
            render_pool, name, spec=inputs, workers=config.workers
        )
        per_concept = config.samples_per_concept[name]
        pools[name] = render_of(BASE, per_concept, _TRAIN_SEED)
        base_probes[name] = render_of(BASE, config.probes.base, _PROBE_SEED)
        development_probes[name] = render_of(
            DEVELOPMENT, config.probes.development, _PROBE_SEED
        )
        logging.info("rendered %d samples of %s", len(pools[name][1]), name)
    return pools, base_probes, development_probes


def _optimizer(config) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, config.steps
    )
    matrices = lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)  # noqa: E731
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=config.weight_decay, mask=matrices),
    )


def train(config, output: pathlib.Path) -> None:
    """Renders, trains and writes the encoder."""
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    fit_tokenizer(output / "tokenizer.json", config.vocabulary)
    spec = _spec(config)
    preprocessing = config.preprocessing.to_dict()
    inputs = InputSpec(
        image_size=config.image_size,
        context_length=config.context_length,
        tokenizer=TokenizerSpec(str(output / "tokenizer.json")),
        **preprocessing,
    )

    pools, base_probes, development_probes = _pools(config, inputs)
    length = config.caption_tokens
    path = inputs.tokenizer.path
    bank = np.stack(
        [
            _encode(path, [captions(c, seed) for c in BASE], length)
            for seed in range(config.captions_per_concept)
        ]
    )
    part_tokens = _encode(path, parts(), length)
    base_names, development_names = (
        _encode(path, [f"a {c.name}" for c in concepts], length)
        for concepts in (BASE, DEVELOPMENT)
    )
    size = config.batch_size
    counts = {name: round(size * share) for name, share in config.shares.items()}

    weights = encoders.init(rngs.key(config.seed, "encoder"), spec)
    optimizer = _optimizer(config)
    state = optimizer.init(weights)
    step_fn = make_step(spec, optimizer, counts, config.shift)
    evaluate = make_evaluate(spec)
    curve = []
    feed = batches(pools, counts, config.steps, config.seed)
    for step, (pixels, labels) in enumerate(feed):
        rng = np.random.default_rng(rngs.host_seed(config.seed, "captions", step))
        rows, some = np.arange(len(BASE)), rng.choice(len(BASE), config.sentences)
        text = {
            "anchors": bank[rng.integers(len(bank), size=len(rows)), rows],
            "others": bank[rng.integers(len(bank), size=len(some)), some],
            "other_label": some,
            "parts": part_tokens,
        }
        key = rngs.key(config.seed, "augment", step)
        weights, state, metrics = step_fn(weights, state, pixels, labels, text, key)
        last = step + 1 == config.steps
        if step % config.evaluate_every == 0 or last:
            curve.append(
                {
                    "step": step + 1,
                    "seconds": round(time.monotonic() - started, 1),
                    **{k: round(float(v), 4) for k, v in metrics.items()},
                    "base_concepts": evaluate(weights, base_probes, base_names),
                    "development_concepts": evaluate(
                        weights, development_probes, development_names
                    ),
                }
            )
            logging.info("%s", json.dumps(curve[-1]))
            pretrained.save(output, spec, weights, preprocessing)
            report = {"config": config.to_dict(), "curve": curve}
            (output / "training.json").write_text(json.dumps(report, indent=1) + "\n")


def main(argv: list[str]) -> None:
    """Trains the encoder; errors in the flags end with exit code 2."""
    try:
        command_line.refuse_arguments(argv)
        config = command_line.required(_CONFIG.value, "configs/pretrain.py")
    except ConfigError as error:
        sys.exit(command_line.complain(error))
    train(config, pathlib.Path(_OUTPUT.value))


def cli() -> None:
    """Runs the program."""
    app.run(main, flags_parser=command_line.parse_with_config)


if __name__ == "__main__":
    cli()
