"""A tuned method by hand: its functions one by one, on tasks of random samples."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.methods.base import Common, LabelSpace, Method
from mmcl_jax.methods.derpp import Options as DerppOptions
from mmcl_jax.methods.derpp import make as derpp
from mmcl_jax.methods.er import Options as ErOptions
from mmcl_jax.methods.er import make as er
from mmcl_jax.methods.ewc import Options as EwcOptions
from mmcl_jax.methods.ewc import make as ewc
from mmcl_jax.methods.lwf import Options as LwfOptions
from mmcl_jax.methods.lwf import make as lwf
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.methods.zscl import Options as ZsclOptions
from mmcl_jax.methods.zscl import make as zscl
from mmcl_jax.models import adapters
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.model import Model
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.models.specs import EncoderSpec
from mmcl_jax.types import Batch, Capacity, Classes, Context, Key, Phase
from tests import by_hand

MODALITIES = ("image", "depth", "video", "text")
# two classes a stage, of a modality in turn
STAGES, ROWS = 8, 4
ADAPTER = adapters.deep_prompts(2, None)
KEY = jax.random.key(0)
GIVEN, SHARED = "per_modality_given", "shared"


@functools.cache
def _embed(spec: EncoderSpec):
    """Compiles the frozen encoder, once."""
    return jax.jit(functools.partial(encoders.embed, spec), static_argnums=1)


class Stream:
    """The functions of a method by hand, and tasks of random samples."""

    def __init__(self, encoder: Encoder, build, sharing: str = GIVEN) -> None:
        spec, pixels = encoder.spec, encoder.spec.reader("visual").image_size
        still = {"pixels": jax.ShapeDtypeStruct((1, *pixels, 3), np.float32)}
        clip = {"pixels": jax.ShapeDtypeStruct((2, *pixels, 3), np.float32)}
        words = jax.ShapeDtypeStruct((spec.text.context_length,), np.int32)
        self.model = Model(
            spec=spec,
            modalities=MODALITIES,
            logit_scale=10.0,
            input_shapes=(still, still, clip, {"tokens": words}),
            embed=functools.partial(encoders.embed, spec),
            embed_layers=functools.partial(encoders.embed_layers, spec),
        )
        self.frozen = jax.tree.map(jnp.asarray, encoder.frozen)
        self.method: Method = build(self.model, sharing)
        self.loss = by_hand.loss(self.method, self.model)
        self._slope = by_hand.compiled(
            jax.value_and_grad(self.loss, has_aux=True), "train"
        )
        self._observe = by_hand.observe(self.method, self.model)
        room = Capacity(2 * STAGES, STAGES)
        self.params, self.memory = by_hand.init(self.method, KEY, room)

    def context(self, stage: int) -> Context:
        of = np.repeat(np.arange(STAGES), 2)
        text = np.random.default_rng(1).normal(size=(2 * STAGES, 16))
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        classes = Classes(
            jnp.asarray(text, jnp.float32),
            jnp.asarray(of <= stage),
            jnp.asarray(of == stage),
            jnp.asarray(of % len(MODALITIES), jnp.int32),
        )
        return Context(self.frozen, self.memory, jnp.asarray(stage), classes, "train")

    def batch(self, stage: int, rows: int = ROWS, seed: int = 0) -> Batch:
        index = stage % len(MODALITIES)
        rng = np.random.default_rng([stage, seed])

        def draw(shape: jax.ShapeDtypeStruct):
            shape_of_rows = (rows, *shape.shape)
            if shape.dtype == np.int32:
                return jnp.asarray(rng.integers(3, 99, shape_of_rows), jnp.int32)
            return jnp.asarray(rng.normal(size=shape_of_rows), jnp.float32)

        inputs = jax.tree.map(draw, self.model.input_shapes[index])
        return Batch(
            inputs=inputs,
            query=_embed(self.model.spec)(self.frozen, MODALITIES[index], inputs),
            label=jnp.asarray(np.resize([2 * stage, 2 * stage + 1], rows), jnp.int32),
            weight=jnp.ones(rows),
            id=jnp.arange(rows, dtype=jnp.int32) + rows * (stage + 100 * seed),
            hint=jnp.full(rows, index, jnp.int32),
            modality=MODALITIES[index],
        )

    def begin(self, stage: int) -> None:
        batch = self.batch(stage)
        self.memory = by_hand.compiled(self.method.prepare, "prepare")(
            self.params, self.context(stage), batch, KEY
        )
        self.params, self.memory = by_hand.compiled(self.method.begin_task, "begin")(
            self.params, self.context(stage), KEY
        )

    def move(self, by: float) -> None:
        # a shift of all entries would be lost in the layer norms
        rng = np.random.default_rng(3)
        self.params = jax.tree.map(
            lambda x: x + by * jnp.asarray(rng.normal(size=x.shape), x.dtype),
            self.params,
        )

    def step(self, stage: int, value: float) -> None:
        """A training step that ends at a value."""
        self.params = jax.tree.map(lambda x: jnp.full_like(x, value), self.params)
        self.memory = self.method.after_step(
            self.params, self.context(stage), self.batch(stage)
        )

    def gradient(self, stage: int, seed: int = 0, key: Key = KEY):
        """The loss of a batch with its metrics, and the gradient."""
        batch = self.batch(stage, seed=seed)
        return self._slope(self.params, self.context(stage), batch, key)

    def logits(self, stage: int, phase: Phase = "train"):
        """Logits of a task's samples, which in training are known to be of it."""
        predict = by_hand.predict(self.method, self.model, phase)
        return predict(self.params, self.context(stage), self.batch(stage)).logits

    def end(self, stage: int) -> None:
        at, batch = self.context(stage), self.batch(stage)
        self.memory = self._observe(self.params, at, batch, KEY)
        self.params, self.memory = by_hand.compiled(self.method.end_task, "end")(
            self.params, self.context(stage), KEY
        )

    def learn(self, stages: Sequence[int], by: float = 0.5) -> None:
        for stage in stages:
            self.begin(stage)
            self.move(by)
            self.end(stage)


def common(sharing: str, label_space: LabelSpace = "task") -> Common:
    return Common(ADAPTER, sharing, label_space)


def with_options(make, options, label_space="task"):
    return lambda model, sharing: make(model, options, common(sharing, label_space))


def tuned(model, sharing):
    return sequential(model, common(sharing))


# by name, and the metric of what is added
CASES = {
    "lwf": (with_options(lwf, LwfOptions()), "distillation"),
    "zscl": (with_options(zscl, ZsclOptions()), "distillation"),
    "ewc": (with_options(ewc, EwcOptions()), "penalty"),
    "er": (with_options(er, ErOptions()), "replay"),
    "derpp": (with_options(derpp, DerppOptions()), "replay"),
}
